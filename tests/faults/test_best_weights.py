"""The best weights survive what happens to a run, or it is said that they did not."""

import os
import shutil
import signal

import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.signals import Stopped

pytestmark = pytest.mark.slow


class Notes(Silent):
    """Keeps what the display is told, and stops the training at a step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.notes = stop_at, []

    def note(self, message: str) -> None:
        self.notes.append(message)

    def step(self, share, values):
        if values["step"] == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Of a run whose best validation is the first one."""
    store = make_store(tmp_path_factory.mktemp("data") / "store")
    return Recipe.load(values(str(store.path), 0, 8, 32, validations=4, keep_best=True, learning_rate=5.0))


@pytest.fixture
def stopped(recipe, tmp_path):
    """A run that was stopped after its best validation."""
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "run", progress=Notes(stop_at=3))
    state = newest(tmp_path / "run" / "checkpoints").state
    assert state["best_step"] < state["step"]
    return tmp_path / "run"


def lost(stopped):
    shutil.rmtree(stopped / "best")
    return "is missing"


def flipped(stopped):
    (path,) = stopped.glob("best/step-*/model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return "model.safetensors does not match its hash"


@pytest.mark.parametrize("damage", [lost, flipped])
def test_best_weights_that_are_lost_are_named_and_the_best_from_there_on_is_kept(recipe, stopped, damage):
    reason, display = damage(stopped), Notes()
    run = pretrain(recipe, stopped, resume=True, progress=display)
    (note,) = [one for one in display.notes if "are lost" in one]
    assert "of step 0" in note
    assert reason in note
    state = newest(run.checkpoints).state
    later = {line["step"]: line["loss"] for line in run.metrics() if line["kind"] == "validation" and line["step"] > 3}
    assert state["best_step"] == min(later, key=later.get)
    assert not (stopped / "best").exists()


def test_best_weights_that_are_whole_are_restored_without_a_word(recipe, stopped, tmp_path):
    display = Notes()
    run = pretrain(recipe, stopped, resume=True, progress=display)
    whole = pretrain(recipe, tmp_path / "whole")
    assert not any("lost" in note for note in display.notes)
    ones, others = (newest(one.checkpoints).model() for one in (run, whole))
    assert all(torch.equal(ones[name], others[name]) for name in ones)
    assert newest(run.checkpoints).state["is_best"]


def test_a_run_stopped_in_its_last_validation_still_ends_with_the_best_weights(recipe, tmp_path, monkeypatch):
    from pretextlm.training.callbacks.best_weights import BestWeights

    whole = pretrain(recipe, tmp_path / "whole")
    end = BestWeights.on_end

    def interrupted(self, trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        trainer.check_interrupted()
        end(self, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(BestWeights, "on_end", interrupted)
        with pytest.raises(Stopped):
            pretrain(recipe, tmp_path / "run")
    assert newest(tmp_path / "run" / "checkpoints").step == 8
    run = pretrain(recipe, tmp_path / "run", resume=True)
    ones, others = (newest(one.checkpoints).model() for one in (run, whole))
    assert all(torch.equal(ones[name], others[name]) for name in ones)
