"""A callback of the user's own sees every step and validation, and can end the training."""

from __future__ import annotations

import pytest
from tests.builders import make_store

import pretextlm as pt


class Recorder(pt.Callback):
    """Notes the name of every call; asks to stop after `stop` steps."""

    def __init__(self, stop: int = 100) -> None:
        self.calls: list[str] = []
        self.losses: list[float] = []
        self.stop = stop

    def on_begin(self, trainer):
        self.calls.append("begin")

    def on_step(self, trainer, metrics):
        self.calls.append(f"step {metrics.step}")
        self.losses.append(metrics.loss)
        trainer.should_stop = metrics.step >= self.stop

    def on_validation(self, trainer, result):
        self.calls.append("validation")

    def on_end(self, trainer):
        self.calls.append("end")

    def close(self):
        self.calls.append("close")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("data") / "store", train=120, validation=20)
    return pt.Recipe(
        data=pt.DataConfig(store=store, length=32),
        objective="causal",
        model=pt.ModelConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2),
        training=pt.TrainingConfig(budget_steps=4, batch_tokens=128, validations=2, compile="off", log_every=1),
    )


def test_a_callback_is_called_in_the_order_of_training(recipe, tmp_path):
    recorder = Recorder()
    run = pt.pretrain(recipe, tmp_path / "run", callbacks=[recorder])
    steps = [call for call in recorder.calls if call.startswith("step")]
    assert steps == ["step 1", "step 2", "step 3", "step 4"]
    assert recorder.calls[0] == "begin"
    assert recorder.calls[-2:] == ["end", "close"]
    assert recorder.calls.count("validation") == sum(line["kind"] == "validation" for line in run.metrics())
    logged = [line["loss"] for line in run.metrics() if line["kind"] == "train"]
    assert recorder.losses == pytest.approx(logged)


def test_a_callback_ends_the_training_early(recipe, tmp_path):
    recorder = Recorder(stop=2)
    run = pt.pretrain(recipe, tmp_path / "run", callbacks=[recorder])
    assert [call for call in recorder.calls if call.startswith("step")] == ["step 1", "step 2"]
    assert run.cost() is not None
    assert run.load_model().config.hidden_size == 16
