"""Training as `pretextlm pretrain` does it, input pipeline and all: 10 steps to warm up, 40 that count."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks.compiled import EagerBlocks
from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures.common import GPU, memory, recipe_of, setting_of, wait

from pretextlm.training.callbacks.base import Callback, StepMetrics
from pretextlm.training.peak_flops import find_peak
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import tune_process

SECTION = "3 ours"
WARM_UP, TIMED = {"cuda": 10, "cpu": 1}, {"cuda": 40, "cpu": 2}


class Window(Callback):
    """Measures the steps after the first ones."""

    def __init__(self, device: str, warm_up: int) -> None:
        self.device, self.warm_up = device, warm_up
        self.waited = self.seconds = 0.0
        self.steps = 0
        self.found: dict[str, Any] = {}

    def on_step(self, trainer: Any, metrics: StepMetrics) -> None:
        if metrics.step < self.warm_up:
            return
        wait(self.device)
        if metrics.step == self.warm_up:
            self.start = time.perf_counter()
            return
        self.seconds, self.steps = time.perf_counter() - self.start, self.steps + 1
        self.waited += metrics.data_seconds
        plan = trainer.plan
        peak = find_peak(trainer.runtime.device, trainer.runtime.dtype) if not self.found else None
        self.peak = peak.flops_per_second if peak else self.peak
        self.found = {
            "tokens per second": round(plan.tokens_per_step * self.steps / self.seconds),
            "MFU": round(plan.flops_per_step * self.steps / self.seconds / self.peak, 4),
            "waiting for data": round(self.waited / self.seconds, 4),
            "GiB": round(memory(self.device) / 2**30, 2),
            "loss": round(metrics.loss, 3),
            "compile seconds": round(trainer.compile_seconds, 1),
        }


def measured(
    device: str, case: str, optimizer: str, warm_up: int, timed: int, objective: Any = None, **training: Any
) -> dict[str, Any]:
    """Trains, and returns what `Window` found and how many blocks ran uncompiled in a step."""
    tune_process()
    setting = setting_of(device, case)
    values = recipe_of(setting, device, optimizer=optimizer, budget_steps=warm_up + timed, **training)
    values["objective"] |= objective or {}
    window, eager = Window(device, warm_up), EagerBlocks()
    with tempfile.TemporaryDirectory() as directory:
        pretrain(Recipe.load(values), Path(directory) / "run", callbacks=[window, eager])
    return window.found | {"uncompiled blocks a step": eager.calls / (warm_up + timed)}


@item(
    SECTION,
    seconds=150,
    alone=True,
    cases=[f"{name}; {optimizer}" for name in GPU for optimizer in (("muon", "adamw") if "16k" in name else ("muon",))],
)
def training(device: str, case: str) -> dict[str, Any]:
    name, _, optimizer = case.partition("; ")
    return measured(device, name, optimizer, WARM_UP[device], TIMED[device])
