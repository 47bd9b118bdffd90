"""A step whose gradient is not finite, or far too large, is left out, counted, and ends the run when there are many."""

import json
import math
from contextlib import contextmanager

import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values
from tests.unit.training.processes import Processes

from pretextlm.errors import UserError
from pretextlm.training.checkpoint import newest
from pretextlm.training.gradient_guard import WARMUP_STEPS
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(make_store(tmp_path_factory.mktemp("data") / "store").path)


def recipe(store, steps=10, **training):
    return Recipe.load(values(store, steps=steps, hidden_size=32, checkpoint_seconds=1e9, log_every=1, **training))


@contextmanager
def gradients(factors):
    """The gradient of some steps (counted from 1) times a number."""
    original = Trainer.gradients

    def changed(self, batches):
        found = original(self, batches)
        factor = factors.get(self.state.step + 1, 1.0)
        for parameter in self.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
        return found

    Trainer.gradients = changed
    try:
        yield
    finally:
        Trainer.gradients = original


def weights(run):
    return run.load_model().state_dict()


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def state(run):
    return newest(run.checkpoints).state


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_left_out_and_counted(store, tmp_path, factor):
    with gradients({4: factor, 7: factor}):
        run = pretrain(recipe(store, skip_steps=2), tmp_path / "run")
    assert state(run)["skipped"] == 2
    assert json.loads((run.directory / "cost.json").read_text())["skipped"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    assert [m["skipped"] for m in run.metrics() if m["kind"] == "train"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_a_step_that_is_left_out_leaves_the_weights_as_they_were(store, tmp_path):
    before = pretrain(recipe(store, steps=3), tmp_path / "before")
    with gradients({4: math.nan}):
        after = pretrain(recipe(store, steps=4, skip_steps=1, schedule="cosine"), tmp_path / "after")
    del before
    with gradients({4: math.nan}), pytest.raises(UserError):
        pretrain(recipe(store, steps=4, schedule="cosine"), tmp_path / "stopped")
    assert same(weights(after), weights(Run.open(tmp_path / "stopped")))


def test_the_metrics_are_json_and_means_are_of_the_steps_that_count(store, tmp_path):
    original = Trainer.gradients

    def lossy(self, batches):
        found = original(self, batches)
        if self.state.step == 3:
            next(self.model.parameters()).grad.fill_(math.nan)
            return dict.fromkeys(found, math.nan)
        return found

    Trainer.gradients = lossy
    try:
        run = pretrain(recipe(store, skip_steps=1), tmp_path / "run")
    finally:
        Trainer.gradients = original
    text = (run.directory / "metrics.jsonl").read_text()
    assert "NaN" not in text
    losses = [m["loss"] for m in run.metrics() if m["kind"] == "train"]
    assert [loss is None for loss in losses] == [step == 3 for step in range(10)]


def test_one_too_many_ends_the_run_with_the_weights_before_it(store, tmp_path):
    with gradients({4: math.nan, 7: math.nan}), pytest.raises(UserError, match="not finite at step 7") as caught:
        pretrain(recipe(store, skip_steps=1), tmp_path / "run")
    assert "skip_steps" in caught.value.hint
    run = Run.open(tmp_path / "run")
    assert newest(run.checkpoints).step == 6
    assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())


def test_the_hint_works_the_run_goes_on_with_more_steps_to_leave_out(store, tmp_path):
    with gradients({4: math.nan}):
        with pytest.raises(UserError):
            pretrain(recipe(store), tmp_path / "run")
        run = pretrain(recipe(store, skip_steps=10), tmp_path / "run", resume=True)
        whole = pretrain(recipe(store, skip_steps=10), tmp_path / "whole")
    assert Run.open(run.directory).recipe.training.skip_steps == 10
    assert same(weights(run), weights(whole))


def test_a_resumed_run_keeps_the_count(store, tmp_path, monkeypatch):
    chosen = recipe(store, skip_steps=2)
    bad = {2: math.nan, 4: math.nan, 8: math.nan}
    with gradients(bad):
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", saving_then_dying_at(5))
            with pytest.raises(KeyboardInterrupt):
                pretrain(chosen, tmp_path / "run")
        assert state(Run.open(tmp_path / "run"))["skipped"] == 2
        with pytest.raises(UserError, match="not finite at step 8"):
            pretrain(chosen, tmp_path / "run", resume=True)


def saving_then_dying_at(step):
    original = Trainer.step

    def stepped(self, *of):
        if self.state.step == step:
            self.save()
            self.writer.wait()
            raise KeyboardInterrupt
        return original(self, *of)

    return stepped


def test_a_spike_is_a_step_whose_gradient_is_many_times_its_usual_size(store, tmp_path):
    settled = WARMUP_STEPS
    steps = settled + 10
    with gradients({3: 1e4, settled + 5: 1e4}):
        left_out = pretrain(recipe(store, steps=steps, spike=50.0, skip_steps=1), tmp_path / "one")
        every = pretrain(recipe(store, steps=steps), tmp_path / "every")
        with pytest.raises(UserError, match=rf"times its usual size at step {settled + 5}"):
            pretrain(recipe(store, steps=steps, spike=50.0), tmp_path / "none")
    assert state(left_out)["skipped"] == 1  # the one before it settled counts as usual
    assert state(every)["skipped"] == 0
    assert not same(weights(left_out), weights(every))


def test_a_run_of_which_no_step_was_sound_knows_no_usual_size(store, tmp_path):
    steps = WARMUP_STEPS + 2
    with gradients(dict.fromkeys(range(1, WARMUP_STEPS + 1), math.nan)):
        run = pretrain(recipe(store, steps=steps, spike=2.0, skip_steps=100), tmp_path / "run")
    assert state(run)["skipped"] == WARMUP_STEPS


def test_a_step_poisoned_on_one_process_is_left_out_on_all(store, tmp_path):
    """Its weights are not restored, so that every later step is poisoned too: the run ends after skip_steps."""
    common = {"checkpoint_seconds": 1e9, "log_every": 1, "steps": 8, "hidden_size": 32, "skip_steps": 2}
    ways = ["ddp", "zero3"]
    recipes = {way: values(store, parallel=way, **common) for way in ways}
    jobs = [{"kind": "train", "recipe": recipes[way], "poison": 3, "out": str(tmp_path / way)} for way in ways]
    with Processes() as processes:
        found = processes.run(jobs, 2)
    assert found[0] == found[1]
    for way, message in zip(ways, found[0], strict=True):
        assert "not finite at step 5" in message
        kept = newest(Run.open(tmp_path / way).checkpoints)
        assert (kept.step, kept.state["skipped"]) == (4, 3)
