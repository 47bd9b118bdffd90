"""Callbacks of users: called for every step, validation and checkpoint, in order; they can end a training."""

import pytest
from tests.builders import make_store

from pretextlm.training.callbacks.base import Callback
from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("callbacks") / "store")


def recipe(store, **training):
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 32},
            "objective": {"name": "causal"},
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"budget_steps": 4, "batch_tokens": 128, "validations": 2, "log_every": 1, **training},
        }
    )


class Recorder(Callback):
    """Records the events of a training."""

    def __init__(self):
        self.events, self.metrics, self.losses = [], [], []

    def on_begin(self, trainer):
        self.events.append("begin")

    def on_step(self, trainer, metrics):
        self.events.append(f"step {metrics.step}")
        self.metrics.append(metrics)

    def on_validation(self, trainer, result):
        self.events.append("validation")
        self.losses.append(result.loss)

    def on_end(self, trainer):
        self.events.append("end")

    def on_finish(self, trainer):
        assert newest(trainer.run.checkpoints).step == trainer.state.step, "the last checkpoint is on disk"
        self.events.append("finish")

    def close(self):
        self.events.append("close")


def test_a_callback_sees_every_event_in_order(store, tmp_path):
    seen = Recorder()
    run = pretrain(recipe(store), tmp_path / "run", callbacks=[seen])
    assert seen.events == [
        *("begin", "validation", "step 1", "step 2", "validation", "step 3", "step 4", "validation"),
        *("end", "finish", "close"),
    ]
    lines = list(run.metrics())
    assert [m.loss for m in seen.metrics] == [line["loss"] for line in lines if line["kind"] == "train"]
    assert [m.learning_rate for m in seen.metrics] == [x["learning_rate"] for x in lines if x["kind"] == "train"]
    assert seen.losses == [line["loss"] for line in lines if line["kind"] == "validation"]
    assert not any(m.skipped for m in seen.metrics)


def test_a_callback_ends_a_training_early(store, tmp_path):
    class Enough(Recorder):
        def on_step(self, trainer, metrics):
            super().on_step(trainer, metrics)
            trainer.should_stop = metrics.step == 3

    seen = Enough()
    run = pretrain(recipe(store), tmp_path / "run", callbacks=[seen])
    assert newest(run.checkpoints).step == 3
    assert seen.events[-3:] == ["end", "finish", "close"]
    assert run.cost()["steps"] == 3


def test_a_callback_changes_no_number(store, tmp_path):
    def losses(run):
        return [line["loss"] for line in run.metrics()]

    plain = pretrain(recipe(store), tmp_path / "plain")
    assert losses(pretrain(recipe(store), tmp_path / "seen", callbacks=[Recorder()])) == losses(plain)


def test_an_exception_of_a_callback_ends_the_run_which_can_be_resumed(store, tmp_path):
    class Broken(Recorder):
        def on_step(self, trainer, metrics):
            if metrics.step == 2:
                trainer.save()
                raise ZeroDivisionError("in a callback")

    broken = Broken()
    with pytest.raises(ZeroDivisionError, match="in a callback"):
        pretrain(recipe(store), tmp_path / "run", callbacks=[broken])
    assert broken.events[-1] == "close"
    resumed = pretrain(recipe(store), tmp_path / "run", resume=True)
    whole = pretrain(recipe(store), tmp_path / "whole")
    assert [x["loss"] for x in resumed.metrics()] == [x["loss"] for x in whole.metrics()]
