"""Three steps under the profiler: the kernels that take longest, and how long the device has nothing to do."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures.common import recipe_of, setting_of, wait
from torch.profiler import ProfilerActivity, profile

from pretextlm.training.callbacks.base import Callback, StepMetrics
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import tune_process

FIRST, STEPS, KERNELS = 5, 3, 15


class Profiled(Callback):
    """Profiles some steps."""

    def __init__(self, device: str) -> None:
        self.device = device
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
        self.profiler = profile(activities=activities)

    def on_step(self, trainer: Any, metrics: StepMetrics) -> None:
        if metrics.step == FIRST:
            wait(self.device)
            self.profiler.__enter__()
            self.start = time.perf_counter()
        elif metrics.step == FIRST + STEPS:
            wait(self.device)
            self.seconds = time.perf_counter() - self.start
            self.profiler.__exit__(None, None, None)


@item("6 profile", seconds=150, alone=True, cases=["GPT 124M, 16k x 1", "T5-base"])
def kernels(device: str, case: str) -> dict[str, Any]:
    tune_process()
    profiled = Profiled(device)
    values = recipe_of(setting_of(device, case), device, optimizer="muon", budget_steps=FIRST + STEPS)
    with tempfile.TemporaryDirectory() as directory:
        pretrain(Recipe.load(values), Path(directory) / "run", callbacks=[profiled])
    on_gpu = device == "cuda"
    took: dict[str, float] = {}
    for event in profiled.profiler.key_averages():
        here = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        # Operators and annotated regions repeat the time of the kernels in them.
        if not event.is_user_annotation and (not on_gpu or event.device_type.name == "CUDA"):
            took[event.key] = took.get(event.key, 0.0) + here / 1e6
    busy = sum(took.values())
    longest = sorted(took, key=lambda name: -took[name])[:KERNELS]
    return {
        "seconds a step": round(profiled.seconds / STEPS, 4),
        "idle share": round(max(0.0, 1 - busy / profiled.seconds), 3) if on_gpu else None,
        "longest": {name[:120]: f"{took[name] / STEPS * 1e3:.2f} ms, {took[name] / busy:.1%}" for name in longest},
    }
