"""Data that fails under way ends a run soon, with a message, by the command line as by the library."""

import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.config import write_toml
from pretextlm.data.loader import Loader
from pretextlm.errors import UserError
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.trainer import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def store(tmp_path):
    """Its place alone: whoever prints a memory map of a file that was cut short, as pytest does of a failure, dies."""
    return SimpleNamespace(path=make_store(tmp_path / "store").path)


def recipe(store, **training):
    return Recipe.load(values(str(store.path), steps=200, hidden_size=32, **training))


def after_step(monkeypatch, step, act):
    """Do something once in the midst of a training."""
    original = Trainer.step

    def stepped(self, *of):
        if self.state.step == step:
            act()
        return original(self, *of)

    monkeypatch.setattr(Trainer, "step", stepped)


def test_an_exception_of_a_worker_ends_the_run_and_leaves_no_thread(store, tmp_path, monkeypatch):
    step = Loader.step

    def fails(self, first, *of):
        if first >= 20:
            raise ZeroDivisionError("in a worker")
        return step(self, first, *of)

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "step", fails)
        with pytest.raises(ZeroDivisionError, match="in a worker"):
            pretrain(recipe(store), tmp_path / "run")
    assert not [t for t in threading.enumerate() if t.name.startswith(("loader", "saver"))]
    run = Run.open(tmp_path / "run")
    assert all(torch.isfinite(tensor).all() for tensor in run.load_model().state_dict().values())


def test_a_shard_that_is_damaged_under_way_is_named(store, tmp_path, monkeypatch):
    tokens = store.path / "train" / "tokens.bin"

    def damage():
        data = np.memmap(tokens, dtype=np.uint16, mode="r+")
        data[:] = 60_000
        data.flush()

    after_step(monkeypatch, 5, damage)
    with pytest.raises(UserError, match=r"store is damaged: it holds a token id") as caught:
        pretrain(recipe(store), tmp_path / "run")
    assert "--verify" in caught.value.hint


@pytest.fixture
def started(command_line, store, tmp_path):
    """Starts the command line, after some code; it is training when this returns."""

    def start(before=""):
        (tmp_path / "recipe.toml").write_text(write_toml(values(str(store.path), steps=100_000, hidden_size=32)))
        command = command_line.start("pretrain", "recipe.toml", "--out", "run", cwd=tmp_path, before=before)
        until = time.monotonic() + 120
        while not list((tmp_path / "run" / "checkpoints").glob("step-*")) and command.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.05)
        return command

    return start


STALLS = """
import time
from pretextlm.data.loader import Loader
step = Loader.step
def stalls(self, first, *of):
    if first >= 100:
        time.sleep(600)
    return step(self, first, *of)
Loader.step = stalls
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command_line_while_it_waits_for_data_ends_it_within_seconds(started, number):
    process = started(STALLS)
    time.sleep(3)  # the data that was read ahead is used up
    began = time.monotonic()
    process.send_signal(number)
    process.wait(180)
    assert time.monotonic() - began < 20
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; saved. Go on with --resume." in process.stderr


def test_a_second_signal_ends_the_command_line_at_once_and_the_run_is_sound(started, tmp_path):
    process = started()
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.wait(180)
    assert process.returncode == 143
    assert Run.open(tmp_path / "run").load_model()


def test_a_shard_that_is_cut_short_under_way_ends_the_command_line_with_a_reason(started, store, tmp_path):
    process = started()
    for name in ("tokens.bin", "word_starts.bin"):
        os.truncate(store.path / "train" / name, 0)
    process.wait(180)
    assert process.returncode == -signal.SIGBUS or process.returncode in (1, 2)
    assert re.search(r"Bus error|is damaged", process.stderr)
    assert Run.open(tmp_path / "run").load_model()
