"""The checks for a GPU in their rehearsal on a CPU: they pass, they find faults, and none of them stops the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.gpu import isolation
from benchmarks.gpu.bench import MODULES as MEASURES
from benchmarks.gpu.check import MODULES as CHECKS
from benchmarks.gpu.checks import attention, dropout, losses
from benchmarks.gpu.isolation import FAILED, ITEMS, NEEDS_GPU, PASSED, load, run_here

ROOT = Path(__file__).parents[2]
QUICK = (
    "attention.packed[bf16 causal 64 2]",
    "attention.packed[fp32 bidirectional 64 4]",
    "attention.unpacked",
    "attention.padding",
    "attention.cross",
    "attention.windows[bf16",
    "attention.bounded_scores",
    "attention.prefix",
    "models.",
    "dropout.bits_are_numpy_s[eager]",
    "dropout.masks_are_the_cpu_s[eager]",
    "losses.cross_entropy[eager]",
    "losses.no_labels",
    "losses.divergence",
    "optimizers.",
    "objectives.losses_are_the_cpu_s[replaced_token]",
    "training.terminated_and_resumed[muon bf16]",
    "training.best_weights_are_kept",
)
load((*CHECKS, *MEASURES, "benchmarks.gpu.measures.curves"))
MEASURED = ("ours.training[BERT-base; muon]", "profiled.kernels[T5-base]", "ceilings.product", "choices.projections")


@pytest.mark.parametrize("name", [name for name in ITEMS if name.startswith(QUICK)])
def test_a_check_passes_on_a_cpu(name):
    outcome = run_here(ITEMS[name], "cpu")
    assert outcome.status == PASSED, outcome.output


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_runs_on_a_cpu(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run_here(ITEMS[name], "cpu")
    assert outcome.status == PASSED, outcome.output
    assert outcome.detail


def test_what_needs_a_gpu_says_why_and_is_not_run():
    outcomes = [run_here(one, "cpu") for one in ITEMS.values() if one.needs_gpu]
    assert {outcome.status for outcome in outcomes} == {NEEDS_GPU}
    assert all(outcome.detail for outcome in outcomes)


def two_percent_off(function):
    return lambda *args, **kwargs: function(*args, **kwargs) * 1.02


@pytest.mark.parametrize(
    ("module", "function", "name"),
    [
        (attention, "attend", "attention.packed[bf16 causal 64 4]"),
        (losses, "linear_cross_entropy", "losses.cross_entropy[eager]"),
    ],
)
def test_a_result_that_is_two_percent_off_is_found(monkeypatch, module, function, name):
    monkeypatch.setattr(module, function, two_percent_off(getattr(module, function)))
    outcome = run_here(ITEMS[name], "cpu")
    assert outcome.status == FAILED
    assert "relative error" in outcome.detail


def test_a_window_that_is_one_too_wide_is_found(monkeypatch):
    whole = attention.self_attention_mask
    monkeypatch.setattr(
        attention, "self_attention_mask", lambda *args, window, **more: whole(*args, window=window + 1, **more)
    )
    assert run_here(ITEMS["attention.windows[fp32 causal 16 plain]"], "cpu").status == FAILED


def test_another_bit_is_found(monkeypatch):
    monkeypatch.setattr(dropout, "random_int16", lambda keys, words: torch.zeros(8, 128, dropout.WIDTH).short())
    assert run_here(ITEMS["dropout.bits_are_numpy_s[eager]"], "cpu").status == FAILED


STUBBORN = """
import os, time
from benchmarks.gpu.isolation import LeftOut, item

@item("1")
def crashes(device): os.abort()
@item("1", seconds=1.0)
def hangs(device): time.sleep(60)
@item("1")
def raises(device): raise ValueError("wrong")
@item("1")
def leaves(device): raise LeftOut("a package is not there")
@item("1", needs_gpu="it does")
def needs(device): raise AssertionError
@item("2", alone=True, cases=(1, 2))
def works(device, case): return {"device": device, "case": case}
"""


def test_a_crash_and_a_hang_stop_no_other_check(tmp_path):
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    program = (
        "from benchmarks.gpu.isolation import main;main('', 'stubborn', ['stubborn'], jobs={'cpu': 3}, limit=60.0)"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OUT": str(tmp_path / "out")}

    def run(*only: str) -> tuple[int, dict[str, str], str]:
        command = [sys.executable, "-c", program, "--device", "cpu", *(["--only", *only] if only else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=100)
        results = json.loads((tmp_path / "out" / "stubborn.json").read_text())["results"]
        return done.returncode, {one["name"]: one["status"] for one in results}, done.stdout

    code, statuses, printed = run()
    assert code == 1
    assert statuses == {
        "stubborn.crashes": isolation.CRASHED,
        "stubborn.hangs": isolation.TIMED_OUT,
        "stubborn.raises": isolation.FAILED,
        "stubborn.leaves": isolation.LEFT_OUT,
        "stubborn.needs": isolation.NEEDS_GPU,
        "stubborn.works[1]": isolation.PASSED,
        "stubborn.works[2]": isolation.PASSED,
    }
    assert "ValueError: wrong" in printed
    assert run("works", "leaves", "needs")[0] == 0
