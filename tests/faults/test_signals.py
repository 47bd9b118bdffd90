"""Signals and time limits: a checkpoint is left, and the run goes on as if nothing had happened."""

import os
import signal
import threading
import time
from datetime import datetime, timedelta

import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.errors import UserError
from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.signals import StopFlag, Stopped
from pretextlm.training.time_limit import parse_stop_at, stop_time

NOW = datetime(2026, 3, 4, 12, 0).timestamp()


class Sends(Silent):
    """Sends signals to this process after the second step, and is slow enough to be stopped by a time."""

    def __init__(self, *numbers, pause=0.0):
        self.numbers, self.pause, self.steps, self.notes = numbers, pause, 0, []

    def step(self, share, numbers):
        self.steps = numbers["step"]
        time.sleep(self.pause)
        if self.steps == 2:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(autouse=True)
def hang_ups():
    """SIGHUP as at a terminal, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("data") / "store")
    return values(str(store.path), steps=6, hidden_size=16, checkpoint_seconds=60)


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    return newest(pretrain(recipe, tmp_path_factory.mktemp("whole") / "run").checkpoints).model()


def assert_goes_on(recipe, out, whole, at=None):
    assert at is None or newest(out / "checkpoints").step == at
    model = newest(pretrain(recipe, out, resume=True).checkpoints).model()
    assert all(torch.equal(model[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGHUP],
        [signal.SIGUSR1],
        [signal.SIGHUP, signal.SIGHUP],
        [signal.SIGHUP, signal.SIGTERM],
        [signal.SIGUSR1, signal.SIGTERM],
    ],
)
def test_a_signal_leaves_a_checkpoint(recipe, whole, tmp_path, numbers):
    with pytest.raises(Stopped) as stopped:
        pretrain(recipe, tmp_path / "run", progress=Sends(*numbers))
    assert stopped.value.exit_code in [128 + number for number in numbers]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    assert_goes_on(recipe, tmp_path / "run", whole, at=2)


def test_a_hangup_under_nohup_stays_ignored(recipe, tmp_path):
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        display = Sends(signal.SIGHUP)
        pretrain(recipe, tmp_path / "run", progress=display)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)
    assert display.steps == 6


def test_a_run_leaves_at_its_time_and_goes_on(recipe, whole, tmp_path):
    limited = {**recipe, "training": {**recipe["training"], "stop_at": "0.6s"}}
    display = Sends(pause=0.5)
    with pytest.raises(Stopped) as stopped:
        pretrain(limited, tmp_path / "run", progress=display)
    assert stopped.value.exit_code == 128 + signal.SIGUSR1
    assert display.steps < 6
    assert any("(training.stop_at)" in note for note in display.notes)
    assert_goes_on(recipe, tmp_path / "run", whole)


def test_a_run_leaves_a_slurm_job_before_its_end(recipe, whole, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 2))
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "run", progress=Sends(pause=1.0))
    monkeypatch.delenv("SLURM_JOB_END_TIME")
    assert_goes_on(recipe, tmp_path / "run", whole)


def test_a_time_limit_interrupts_work_that_cannot_poll():
    began = time.monotonic()
    with StopFlag(time.time() + 0.2) as stop, pytest.raises(BaseException, match=r"^$"), stop.at_once():
        threading.Event().wait(10)
    assert time.monotonic() - began < 5
    assert stop.number == signal.SIGUSR1


def test_a_time_limit_reaches_a_run_in_another_thread():
    seen = []

    def work():
        with StopFlag(time.time()) as stop:
            until = time.monotonic() + 5
            while not stop.number and time.monotonic() < until:
                time.sleep(0.01)
            seen.append(stop.number)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIGUSR1]


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("2h30m", timedelta(hours=2, minutes=30)),
        ("90m", timedelta(minutes=90)),
        ("1.5h", timedelta(hours=1.5)),
        ("1d", timedelta(days=1)),
        ("45s", timedelta(seconds=45)),
        ("18:30", timedelta(hours=6, minutes=30)),
        ("12:00:01", timedelta(seconds=1)),
        ("11:00", timedelta(hours=23)),
        ("2026-03-05T12:00", timedelta(days=1)),
    ],
)
def test_durations_and_times(text, after):
    assert parse_stop_at(text, NOW) == NOW + after.total_seconds()


@pytest.mark.parametrize(
    "text", ["soon", "2h30", "25:00", "12:60", "h", "-1h", "1m1h", "9" * 400 + "d", "2026-13-01T00:00"]
)
def test_what_is_no_time_is_refused_by_name(recipe, text):
    with pytest.raises(UserError, match=r"stop_at") as caught:
        Recipe.load({**recipe, "training": {**recipe["training"], "stop_at": text}})
    assert "2h30m" in str(caught.value)


def test_a_time_that_is_over_is_refused(recipe, tmp_path):
    with pytest.raises(UserError, match=r"training\.stop_at is 2020-01-01T00:00:00, which is over"):
        pretrain(Recipe.load(recipe, overrides=["training.stop_at=2020-01-01T00:00:00"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("end", ["", "soon", "0", "-5"])
def test_a_job_that_does_not_say_when_it_ends_has_no_limit(monkeypatch, end):
    monkeypatch.setenv("SLURM_JOB_END_TIME", end)
    assert stop_time() is None


def test_the_earlier_of_two_limits_counts(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 7200))
    assert stop_time("1h")[1] == "training.stop_at"
    limit, why = stop_time("3h")
    assert why == "SLURM_JOB_END_TIME"
    assert 7200 - 122 < limit - time.time() < 7200 - 118
