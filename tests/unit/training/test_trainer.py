"""The trainer's equalities: any cut of a step, any interruption, any number of workers give the same run."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.training.corpus import Corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model
from pretextlm.training.signals import StopFlag, Stopped
from pretextlm.training.trainer import Trainer

DEFAULTS = {"budget_steps": 6, "batch_tokens": 512, "dtype": "fp32", "log_every": 2, "validations": 3}
OBJECTIVES = ["causal", "masked", "span_corruption"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


def recipe(store, objective="causal", **training) -> Recipe:
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": objective},
        "model": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        "training": {**DEFAULTS, **training},
    }
    return Recipe.load(values)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.load_model().state_dict()


def assert_same_run(one: Run, other: Run) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    timing = {"seconds", "tokens_per_second", "data_wait", "mfu", "memory"}
    lines = [[{k: v for k, v in m.items() if k not in timing} for m in run.metrics()] for run in (one, other)]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_every_objective_learns_under_both_optimizers(store, tmp_path, objective, optimizer):
    run = pretrain(recipe(store, objective, budget_steps=40, optimizer=optimizer, log_every=1), tmp_path / "run")
    losses = [m["loss"] for m in run.metrics() if m["kind"] == "train"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    cost = json.loads((run.directory / "cost.json").read_text())
    assert cost["steps"] == 40
    assert cost["parameters"] == sum(t.numel() for t in weights(run).values())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_that_is_stopped_before_its_first_step_goes_on(store, tmp_path, monkeypatch, optimizer):
    chosen = recipe(store, optimizer=optimizer)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "compile", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Stopped):
            pretrain(chosen, tmp_path / "cut")
    assert [m["step"] for m in Run.open(tmp_path / "cut").metrics()] == []
    assert_same_run(pretrain(chosen, tmp_path / "whole"), pretrain(chosen, tmp_path / "cut", resume=True))


@pytest.mark.slow
def test_a_run_goes_on_under_other_settings_of_the_machine_and_under_no_other_recipe(store, tmp_path, monkeypatch):
    chosen = recipe(store, micro_batch_tokens=256)
    whole = pretrain(chosen, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        with pytest.raises(Stopped):
            pretrain(chosen, tmp_path / "cut")
    with pytest.raises(UserError, match="another recipe"):
        pretrain(recipe(store, micro_batch_tokens=256, learning_rate=1e-4), tmp_path / "cut", resume=True)
    other = recipe(store, micro_batch_tokens=256, checkpoint_seconds=1.0, skip_steps=3, parallel="zero3")
    run = pretrain(other, tmp_path / "cut", resume=True)
    assert_same_run(whole, run)
    assert Run.open(run.directory).recipe.training == other.training


def interrupt_after(patch, steps: int) -> None:
    """SIGTERM reaches this process after so many steps."""
    original, taken = Trainer.step, []

    def step(self, *args):
        done = original(self, *args)
        taken.append(1)
        if len(taken) == steps:
            signal.raise_signal(signal.SIGTERM)
        return done

    patch.setattr(Trainer, "step", step)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
def test_a_compiled_run_is_the_eager_run_within_rounding_and_resumes_bit_for_bit(store, tmp_path, monkeypatch):
    eager = pretrain(recipe(store, "span_corruption", log_every=1), tmp_path / "eager")
    compiled = recipe(store, "span_corruption", log_every=1, compile="on")
    whole = pretrain(compiled, tmp_path / "whole")
    losses = [[m["loss"] for m in run.metrics() if m["kind"] == "train"] for run in (eager, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert json.loads((whole.directory / "cost.json").read_text())["compile_seconds"] > 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Stopped):
            pretrain(compiled, tmp_path / "cut", resume=True)
    assert_same_run(whole, pretrain(compiled, tmp_path / "cut", resume=True))


def test_the_number_of_workers_changes_nothing(store, tmp_path):
    one = recipe(store, "masked")
    many = one.model_copy(update={"data": one.data.model_copy(update={"workers": 4})})
    assert_same_run(pretrain(one, tmp_path / "one"), pretrain(many, tmp_path / "many"))


def test_a_rate_that_changes_over_training_needs_a_budget_that_says_how_far_it_is(store, tmp_path):
    table = {"name": "masked", "rate": 0.5, "final_rate": 0.1}
    values = recipe(store).dump() | {"objective": table, "model": {**recipe(store).dump()["model"]}}
    values["model"]["architecture"] = "encoder"
    chosen = Recipe.load(values)
    chosen = chosen.with_vocabulary(store.vocabulary)
    plan = make_plan(chosen, Corpus.of_store(chosen, store), torch.device("cpu"))
    with make_loader(chosen, Corpus.of_store(chosen, store), plan.total_rows) as loader:
        shares = []
        for step in range(6):
            (batch,) = loader.step(step * plan.rows, plan.rows, plan.rows)
            shares.append((batch.labels != -100).mean())
    assert shares == pytest.approx([0.5 - 0.4 * step / 6 for step in range(6)], abs=0.07)
    values["training"] = {**values["training"], "budget_seconds": 5.0}
    del values["training"]["budget_steps"]
    with pytest.raises(UserError, match="budget in seconds"):
        pretrain(Recipe.load(values), tmp_path / "run")


def test_another_seed_is_another_run(store, tmp_path):
    one = pretrain(recipe(store, budget_steps=1), tmp_path / "one")
    other = pretrain(recipe(store, budget_steps=1).model_copy(update={"seed": 1}), tmp_path / "other")
    assert not torch.equal(weights(one)["embed_tokens.weight"], weights(other)["embed_tokens.weight"])


def test_initial_weights_come_from_the_seed_alone(store):
    chosen = recipe(store).with_vocabulary(store.vocabulary)
    torch.manual_seed(1)
    one = build_model(chosen, torch.device("cpu")).state_dict()
    torch.manual_seed(2)
    other = build_model(chosen, torch.device("cpu")).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["tokens", "flops", "seconds"])
def test_each_kind_of_budget_ends_the_run(store, tmp_path, kind):
    size = {"tokens": 2000.0, "flops": 3e8, "seconds": 0.3}[kind]
    run = pretrain(recipe(store, budget_steps=None, **{f"budget_{kind}": size}), tmp_path / "run")
    cost = json.loads((run.directory / "cost.json").read_text())
    per_step = cost[kind] / cost["steps"]
    assert cost[kind] >= size
    assert cost[kind] - (per_step if kind != "seconds" else 0.25) < size


def test_a_gradient_that_is_not_finite_stops_before_it_reaches_a_weight(store, tmp_path, monkeypatch):
    original = Trainer.gradients

    def poisoned(self, batches):
        means = original(self, batches)
        if self.state.step == 3:
            next(self.model.parameters()).grad[0, 0] = float("nan")
        return means

    monkeypatch.setattr(Trainer, "gradients", poisoned)
    with pytest.raises(UserError, match="not finite at step 4"):
        pretrain(recipe(store), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_a_run_is_not_written_over_and_not_continued_under_another_recipe(store, tmp_path):
    run = pretrain(recipe(store, budget_steps=1), tmp_path / "run")
    before = {p: p.read_bytes() for p in run.directory.rglob("*") if p.is_file() and p.name != "run.lock"}
    with pytest.raises(UserError, match="not empty"):
        pretrain(recipe(store, budget_steps=1), tmp_path / "run")
    with pytest.raises(UserError, match=r"training\.learning_rate: 0\.004 became 0\.5\."):
        pretrain(recipe(store, budget_steps=1, learning_rate=0.5), tmp_path / "run", resume=True)
    assert all(path.read_bytes() == content for path, content in before.items())


def test_a_stop_flag_outside_the_main_thread_never_rises():
    import threading

    seen = []
    thread = threading.Thread(target=lambda: seen.append(StopFlag().__enter__().number))
    thread.start()
    thread.join()
    assert seen == [0]


@pytest.mark.slow
def test_a_compiler_that_fails_ends_no_run_that_did_not_ask_for_it(store, tmp_path, monkeypatch):
    broken = tmp_path / "compiler"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("pretextlm.training.runtime.COMPILE_PAYS_SECONDS", 0.0)
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, str(broken)))
    values = recipe(store, compile="auto").dump()
    values["model"] |= {"hidden_size": 44}  # nothing is in a cache for it
    run = pretrain(Recipe.load(values), tmp_path / "auto")
    values["training"] |= {"compile": "off"}
    assert_same_run(run, pretrain(Recipe.load(values), tmp_path / "off"))
    values["training"] |= {"compile": "on"}
    with pytest.raises(UserError, match="compiler failed"):
        pretrain(Recipe.load(values), tmp_path / "on")
