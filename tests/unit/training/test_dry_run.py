"""What a rehearsal says is what the training then does, and it leaves nothing behind."""

import json
import os

import pytest
import torch
from tests.builders import make_model, make_store

from pretextlm.data.document_rows import by_document
from pretextlm.training import dry_run as module
from pretextlm.training import memory_plan as fit
from pretextlm.training.dry_run import dry_run
from pretextlm.training.memory_estimate import MemoryEstimate, estimate_memory, estimate_memory_per_process
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

pytestmark = pytest.mark.slow

OBJECTIVES = ["causal", "span_corruption", "replaced_token"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.0)


def recipe(store, objective="causal", **budget) -> Recipe:
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 64},
            "objective": {"name": objective},
            "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
            "training": {
                "batch_tokens": 512,
                "micro_batch_tokens": 256,
                "dtype": "fp32",
                "validations": 0,
                **(budget or {"budget_tokens": 2000.0}),
            },
        }
    )


def files(place) -> set[str]:
    return {os.path.join(at, name) for at, _, names in os.walk(place) for name in names}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_steps_tokens_operations_and_parameters_are_those_of_the_training(store, tmp_path, objective):
    found = dry_run(recipe(store, objective), tmp_path / "run")
    assert files(tmp_path) == set()
    run = pretrain(recipe(store, objective), tmp_path / "run")
    cost = json.loads((run.directory / "cost.json").read_text())
    assert found["parameters"] == cost["parameters"]
    assert found["run"]["steps"] == cost["steps"]
    assert round(found["run"]["tokens"]) == cost["tokens"]
    assert found["run"]["flops"] == pytest.approx(cost["flops"])
    checkpoint = max((run.directory / "checkpoints").iterdir())
    written = sum((checkpoint / name).stat().st_size for name in ("model.safetensors", "optimizer.safetensors"))
    assert written == pytest.approx(found["disk"]["checkpoint_bytes"], rel=0.05)


def test_training_after_a_rehearsal_is_training_without_it(store, tmp_path):
    torch.set_num_threads(1)
    one = pretrain(recipe(store), tmp_path / "one")
    dry_run(recipe(store), tmp_path / "other")
    other = pretrain(recipe(store), tmp_path / "other")
    mine, theirs = one.load_model().state_dict(), other.load_model().state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_every_kind_of_budget_is_worked_out_and_seconds_by_measuring(store, tmp_path):
    step = dry_run(recipe(store, budget_steps=3), tmp_path)["step"]
    for kind, size in (("steps", 3), ("tokens", 2.5 * step["tokens"]), ("flops", 2.5 * step["flops"])):
        run = dry_run(recipe(store, **{f"budget_{kind}": size}), tmp_path)["run"]
        assert (run["steps"], run["known"]) == (3, "exact")
        assert run["epochs"] == pytest.approx(run["tokens"] / len(store.train.tokens), rel=0.1)
    found = dry_run(recipe(store, budget_seconds=60.0), tmp_path)
    assert found["run"]["known"] == "measured"
    assert found["run"]["steps"] == pytest.approx(60 / found["speed"]["seconds_per_step"], abs=1)
    assert found["time"]["training_seconds"] == 60


def test_speed_utilisation_and_time_are_of_one_measurement(store, tmp_path):
    found = dry_run(recipe(store), tmp_path)
    speed, step = found["speed"], found["step"]
    assert speed["measured_on"].startswith("3 steps of 8 rows")
    assert speed["flops_per_second"] == pytest.approx(step["flops"] / speed["seconds_per_step"])
    assert speed["mfu"] == pytest.approx(speed["flops_per_second"] / found["device"]["peak_flops_per_second"])
    assert found["time"]["training_seconds"] == pytest.approx(found["run"]["steps"] * speed["seconds_per_step"])


def test_validation_is_reckoned_on_the_rows_that_there_are(store, tmp_path):
    def operations(rows: int) -> float:
        found = dry_run(recipe(store, budget_steps=4, validations=2, validation_rows=rows), tmp_path / "run")
        return found["time"]["validation_seconds"] * found["speed"]["flops_per_second"]

    reader = recipe(store).training_objective.reader(store.validation, recipe(store).vocabulary(store), 64)
    there = by_document(reader, 0).rows_per_pass
    assert operations(1 << 40) == pytest.approx(operations(there))
    assert operations(2 * there) == pytest.approx(2 * operations(there // 2), rel=0.1)


def test_a_step_that_does_not_fit_is_not_tried(store, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "free_memory", lambda device: 1000)
    found = dry_run(recipe(store, budget_seconds=60.0), tmp_path)
    assert not found["memory"]["fits"]
    assert (found["speed"], found["time"], found["run"]["steps"]) == (None, None, None)
    assert dry_run(recipe(store), tmp_path)["run"]["steps"] == 4


def test_spread_weights_gradients_and_optimizer_are_divided_and_what_is_gathered_is_added():
    model = make_model(num_hidden_layers=3)
    alone = estimate_memory(model, "adamw", 2, 16, "fp32")
    assert estimate_memory_per_process(alone, model, "ddp", 4) == alone
    block = 4 * sum(p.numel() for p in model.decoder[0].parameters()) if model.decoder else 0
    block = block or 4 * sum(p.numel() for p in model.encoder[0].parameters())
    quarter = -(-alone.weights // 4)
    divided = (quarter, -(-alone.optimizer // 4), alone.activations)
    assert estimate_memory_per_process(alone, model, "zero2", 4) == MemoryEstimate(quarter + alone.weights, *divided)
    outside = alone.weights - 3 * block
    assert estimate_memory_per_process(alone, model, "zero3", 4) == MemoryEstimate(
        quarter + outside + 2 * block, *divided
    )
