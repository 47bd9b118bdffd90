"""Several processes train the model that one process trains, whatever each of them holds."""

import shutil

import pytest
import torch
from tests.builders import make_store
from tests.unit.training.processes import together

from pretextlm.data.loader import shared_out
from pretextlm.training.checkpoint import newest
from pretextlm.training.recipe import Recipe
from pretextlm.training.run import Run
from pretextlm.training.trainer import pretrain

STEPS = 6
OBJECTIVES = ["causal", "masked", "span_corruption", "denoisers", "next_sentence", "replaced_token"]
CASES = [(objective, way, "muon") for objective in OBJECTIVES for way in ("ddp", "zero3")]
CASES += [("causal", "zero2", "muon"), *(("masked", way, "adamw") for way in ("ddp", "zero2", "zero3"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def values(store, objective="causal", **training) -> dict:
    """Three micro-batches of unequal numbers of rows a step, and a width that no number of processes divides."""
    return {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": objective},
        "model": {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 70},
        "training": {
            "budget_steps": STEPS,
            "batch_tokens": 704,
            "micro_batch_tokens": 256,
            "dtype": "fp32",
            "learning_rate": 1e-3,
            "log_every": 1,
            "validations": 2,
            **training,
        },
    }


@pytest.fixture(scope="module")
def alone(store, tmp_path_factory):
    """Runs of one process, by objective and optimizer, made when they are asked for."""
    place, made = tmp_path_factory.mktemp("alone"), {}

    def run(objective, optimizer):
        key = f"{objective}-{optimizer}"
        if key not in made:
            made[key] = pretrain(Recipe.load(values(store, objective, optimizer=optimizer)), place / key)
        return made[key]

    return run


def assert_the_same(one: Run, other: Run) -> None:
    """Up to the order of additions."""
    mine, theirs = (run.load_model().state_dict() for run in (one, other))
    assert mine.keys() == theirs.keys()
    for name in mine:
        torch.testing.assert_close(mine[name], theirs[name], atol=2e-6, rtol=1e-6)
    lines = [run.metrics() for run in (one, other)]
    assert [(m["kind"], m["step"], m["tokens"]) for m in lines[0]] == [
        (m["kind"], m["step"], m["tokens"]) for m in lines[1]
    ]
    for mine, theirs in zip(*lines, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=2e-6)
        if mine["kind"] == "train":
            assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=2e-5)


@pytest.fixture(scope="module")
def of_two(store, tmp_path_factory):
    """Runs of two processes, all made in one go."""
    place = tmp_path_factory.mktemp("two")
    jobs = {
        f"{objective}-{way}-{optimizer}": {"recipe": values(store, objective, parallel=way, optimizer=optimizer)}
        for objective, way, optimizer in CASES
    }
    jobs["poisoned"] = {"recipe": values(store), "poison": 4}
    found = together([{**job, "out": str(place / name)} for name, job in jobs.items()], 2)
    assert found[0] == found[1]
    return dict(zip(jobs, found[0], strict=True)), place


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "way", "optimizer"), CASES)
def test_two_processes_train_the_model_of_one(of_two, alone, objective, way, optimizer):
    outcomes, place = of_two
    name = f"{objective}-{way}-{optimizer}"
    assert outcomes[name] == "done"
    run = Run.open(place / name)
    assert newest(run.checkpoints).in_parts == (way != "ddp")
    assert_the_same(alone(objective, optimizer), run)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_on_one_process_stops_all_at_that_step(of_two):
    outcomes, place = of_two
    assert "not finite at step 4" in outcomes["poisoned"]
    assert newest(Run.open(place / "poisoned").checkpoints).step == 3


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(store, alone, tmp_path):
    """2 → 1 → 4 → 2, in parts and in copies of parts."""
    ways = {"zero3": 4, "hybrid": 2}
    jobs = {way: {"recipe": values(store, parallel=way), "out": str(tmp_path / way), "resume": True} for way in ways}
    assert together([{**job, "stop_at": 1} for job in jobs.values()], 2, machine=2) == [["stopped", "stopped"]] * 2
    assert together([{**job, "stop_at": 2} for job in jobs.values()], 1) == [["stopped", "stopped"]]
    assert together([{**job, "stop_at": 4} for job in jobs.values()], 4, machine=2) == [["stopped", "stopped"]] * 4
    assert together(list(jobs.values()), 2, machine=2) == [["done", "done"]] * 2
    for way in ways:
        assert_the_same(alone("causal", "muon"), Run.open(tmp_path / way))


def test_every_row_of_a_step_is_read_by_one_process_and_all_make_as_many_passes():
    for rows in (1, 2, 3, 7, 8, 23):
        group = torch.randperm(rows).numpy()
        for most in (1, 2, 5, 64):
            for processes in (1, 2, 3, 4):
                pieces = [shared_out(group, most, number, processes) for number in range(processes)]
                read = sorted(int(row) for mine in pieces for piece in mine for row in piece)
                assert read == sorted(group.tolist())
                assert len({len(mine) for mine in pieces}) == 1
                assert all(len(piece) <= most for mine in pieces for piece in mine)


def test_a_place_among_processes_that_makes_no_sense_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(Exception, match="makes no sense: RANK='2'"):
        pretrain(Recipe.load(values(store)), tmp_path / "run")
    shutil.rmtree(tmp_path)
