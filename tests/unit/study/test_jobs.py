"""Runs side by side give what one after another gives; what dies takes nothing with it, and a signal reaches all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.study.compare import run_plan
from pretextlm.study.jobs import QueuedRun, run_in_parallel
from pretextlm.study.plan import StudyPlan
from pretextlm.study.progress import Silent
from pretextlm.study.run_executor import RunExecutor
from pretextlm.study.study_results import StudyRecorder, StudyResults
from pretextlm.training.signals import StopFlag, Stopped

pytestmark = pytest.mark.slow


def train(recipe, directory: Path, *, resume, command, progress) -> None:
    """A trainer by name: one fails, one dies, one needs another's work; "long" waits for a signal."""
    directory.mkdir(parents=True)
    progress.step(0.5, {"loss": 3.0})
    if recipe == "fails":
        raise UserError("no such teacher")
    if recipe == "dies":
        os._exit(9)
    if recipe == "student":
        assert (directory.parent / "teacher" / "cost.json").exists()
    if recipe == "long":
        with StopFlag() as stop:
            (directory / "began").touch()
            while not stop.number:
                time.sleep(0.01)
        (directory / "saved").touch()
        raise Stopped(stop.number)
    (directory / "cost.json").write_text("{}")


def evaluate(directory: Path) -> None:
    (directory / "evaluation.json").write_text("{}")


def make(place: Path, names: list[str], after: dict[str, tuple[str, ...]] | None = None) -> StudyResults:
    outcome = StudyResults(place)
    turns = [QueuedRun(name, partial(str, name), place / name, (after or {}).get(name, ())) for name in names]
    run_in_parallel(turns, 2, RunExecutor(train, evaluate), (), StudyRecorder(outcome, len(turns), Silent()))
    return outcome


def test_a_run_that_fails_or_dies_leaves_the_others_alone(tmp_path: Path) -> None:
    after = {"student": ("teacher",), "orphan": ("dies",)}
    outcome = make(tmp_path, ["dies", "fails", "teacher", "student", "orphan"], after)
    assert sorted(outcome.finished) == ["orphan", "student", "teacher"]
    assert outcome.failed == {"dies": "its process ended with exit code 9", "fails": "no such teacher"}


def test_a_signal_is_passed_on_once_and_everything_is_saved(tmp_path: Path) -> None:
    program = (
        f"from pathlib import Path; from {__name__} import make; make(Path({str(tmp_path)!r}), ['long', 'teacher'])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    study = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True, env=env)
    while not (tmp_path / "long" / "began").exists() or not (tmp_path / "teacher" / "evaluation.json").exists():
        assert study.poll() is None
        time.sleep(0.05)
    study.send_signal(signal.SIGINT)
    _, said = study.communicate(timeout=60)
    assert "Stopped: stopped by SIGINT" in said
    assert (tmp_path / "long" / "saved").exists()


def test_two_runs_at_a_time_learn_what_one_at_a_time_learns(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    values = {"store": str(store.path), "objectives": ["causal", "masked"], "seeds": [1], "budget": {"tokens": 512}}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    training = {"batch_tokens": 128, "dtype": "fp32", "threads": 1, "compile": "off", "validations": 1}
    plan = StudyPlan.parse({**values, "length": 32, "model": small, "training": training})
    for jobs in (1, 2):
        assert not run_plan(plan, tmp_path / str(jobs), jobs=jobs).failed
    for run in ("causal-seed1", "masked-seed1"):
        one, two = (json.loads((tmp_path / n / "runs" / run / "evaluation.json").read_text()) for n in ("1", "2"))
        assert one["metrics"] == two["metrics"]
    with pytest.raises(UserError, match="jobs must be at least 1"):
        run_plan(plan, tmp_path / "none", jobs=0)
