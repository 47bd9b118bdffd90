"""Several processes train the model that one process trains, whatever each of them holds."""

import itertools
import shutil

import pytest
import torch
from safetensors.torch import load_file
from tests.builders import make_store
from tests.unit.training.processes import Processes, outcome

from pretextlm.data.loader import shared_out
from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run

STEPS = 6
TOLERANCE = 1e-6
"""Largest difference of a weight's gradient, as a share of its norm, and of the loss."""
WAYS = ["ddp", "zero2", "zero3", "hybrid"]
MEASURED = ["causal", "masked", "span_corruption", "replaced_token"]
TRAINED = ["causal", "denoisers", "next_sentence", "replaced_token"]
CASES = [(objective, way, "muon") for objective in TRAINED for way in ("ddp", "zero3")]
CASES += [("causal", "zero2", "muon"), *(("masked", way, "adamw") for way in ("ddp", "zero2", "zero3"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def values(store, objective="causal", **training) -> dict:
    """A step of three micro-batches of five rows, which processes cut unevenly; a width that they do not divide."""
    return {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": objective},
        "model": {"hidden_size": 36, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 70},
        "training": {
            "budget_steps": STEPS,
            "batch_tokens": 960,
            "micro_batch_tokens": 320,
            "dtype": "fp32",
            "dropout": 0.1,
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


def assert_the_same(one: Run, other: Run, weights: float = 2e-6) -> None:
    """Up to the order of additions; weights up to some difference, after updates of up to 6e-3."""
    mine, theirs = (run.load_model().state_dict() for run in (one, other))
    assert mine.keys() == theirs.keys()
    worst = max(float((mine[name] - theirs[name]).abs().max()) for name in theirs)
    lines = [run.metrics() for run in (one, other)]
    assert [(m["kind"], m["step"], m["tokens"]) for m in lines[0]] == [
        (m["kind"], m["step"], m["tokens"]) for m in lines[1]
    ]
    of_losses = max(abs(mine["loss"] / theirs["loss"] - 1) for mine, theirs in zip(*lines, strict=True))
    of_norms = max(
        abs(mine["gradient_norm"] / theirs["gradient_norm"] - 1)
        for mine, theirs in zip(*lines, strict=True)
        if mine["kind"] == "train"
    )
    print(f"largest difference of weights {worst:.1e}, losses {of_losses:.1e}, norms {of_norms:.1e}")
    assert max(of_losses, of_norms) <= TOLERANCE
    assert worst <= weights


@pytest.fixture(scope="module")
def processes():
    with Processes() as them:
        yield them


@pytest.fixture(scope="module")
def gradients(store, processes, tmp_path_factory):
    """(losses, rows, gradients) of the first steps of each objective: of one process, and of 2 and 4 in every way."""
    place, found = tmp_path_factory.mktemp("gradients"), {}

    def job(*key) -> dict:
        objective, way, _ = key
        recipe = values(store, objective, parallel=way or "ddp")
        return {"kind": "gradients", "recipe": recipe, "out": str(place / "-".join(map(str, key)))}

    for size in (1, 2, 4):
        keys = [(objective, way, size) for objective in MEASURED for way in (WAYS if size > 1 else [""])]
        jobs = [job(*key) for key in keys]
        told = processes.run(jobs, size, machine=2) if size > 1 else [[outcome(job) for job in jobs]]
        for number, (key, one) in enumerate(zip(keys, jobs, strict=True)):
            losses, rows = zip(*(of_process[number] for of_process in told), strict=True)
            steps = [sorted(itertools.chain(*step)) for step in zip(*rows, strict=True)]
            found[key] = losses, steps, load_file(f"{one['out']}/gradients.safetensors")
    return found


@pytest.fixture(scope="module")
def of_two(store, processes, tmp_path_factory):
    """Runs of two processes, all made in one go."""
    place = tmp_path_factory.mktemp("two")
    jobs = {
        f"{objective}-{way}-{optimizer}": {"recipe": values(store, objective, parallel=way, optimizer=optimizer)}
        for objective, way, optimizer in CASES
    }
    jobs["poisoned"] = {"recipe": values(store), "poison": 4}
    jobs["large"] = {"recipe": values(store), "memory": 1 << 50}
    found = processes.run([{**job, "kind": "train", "out": str(place / name)} for name, job in jobs.items()], 2)
    assert found[0] == found[1]
    return dict(zip(jobs, found[0], strict=True)), place


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("objective", MEASURED)
def test_any_number_of_processes_has_the_loss_and_the_gradients_of_one(gradients, objective, way, size):
    (alone,), _, whole = gradients[objective, "", 1]
    losses, _, found = gradients[objective, way, size]
    assert len(set(losses)) == 1
    assert losses[0] == pytest.approx(alone, rel=TOLERANCE)
    assert found.keys() == whole.keys()
    worst = max(float((found[name] - whole[name]).norm() / whole[name].norm()) for name in whole)
    print(f"largest difference {worst:.1e}, of the loss {abs(losses[0] / alone - 1):.1e}")
    assert worst <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("objective", MEASURED)
def test_any_number_of_processes_reads_the_same_rows_in_a_step(gradients, objective):
    _, rows, _ = gradients[objective, "", 1]
    assert all(rows)
    assert [steps for key, (_, steps, _) in gradients.items() if key[0] == objective] == [rows] * (1 + 2 * len(WAYS))


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "way", "optimizer"), CASES)
def test_two_processes_train_the_model_of_one(of_two, alone, objective, way, optimizer):
    outcomes, place = of_two
    name = f"{objective}-{way}-{optimizer}"
    assert outcomes[name] == "done"
    run = Run.open(place / name)
    assert newest(run.checkpoints).is_sharded == (way != "ddp")
    assert_the_same(alone(objective, optimizer), run)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_on_one_process_stops_all_at_that_step(of_two):
    outcomes, place = of_two
    assert "not finite at step 4" in outcomes["poisoned"]
    assert newest(Run.open(place / "poisoned").checkpoints).step == 3


@pytest.mark.slow
def test_the_memory_of_a_run_is_that_of_the_process_with_the_most(of_two):
    _, place = of_two
    lines = [m for m in Run.open(place / "large").metrics() if m["kind"] == "train"]
    assert [line["memory"] for line in lines] == [1 << 50] * STEPS


@pytest.mark.slow
def test_a_run_goes_on_with_any_number_of_processes(store, processes, alone, tmp_path):
    """2 → 1 → 4 → 2, in parts and in copies of parts."""
    ways = ["zero3", "hybrid"]
    jobs = [{"kind": "resume", "recipe": values(store, parallel=way), "out": str(tmp_path / way)} for way in ways]
    first, second, third = ([{**job, "stop_at": step} for job in jobs] for step in (1, 2, 4))
    assert processes.run(first, 2, machine=2) == [["stopped", "stopped"]] * 2
    assert [outcome(job) for job in second] == ["stopped", "stopped"]
    assert processes.run(third, 4, machine=2) == [["stopped", "stopped"]] * 4
    assert processes.run(jobs, 2, machine=2) == [["done", "done"]] * 2
    for way in ways:
        assert_the_same(alone("causal", "muon"), Run.open(tmp_path / way), weights=TOLERANCE)


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
    with pytest.raises(Exception, match="an impossible process: RANK='2'"):
        pretrain(Recipe.load(values(store)), tmp_path / "run")
    shutil.rmtree(tmp_path)
