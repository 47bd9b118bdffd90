"""Settings of the measurements, on a GPU and, much smaller, on a CPU; clocks that wait for the device."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmarks.training.setting import Setting
from benchmarks.training.stores import WORK, speeches

VOCABULARY = 32_768
BASE = {"hidden": 768, "heads": 12, "batch_tokens": 65_536, "micro_tokens": 16_384}
GPU = {
    "GPT 124M, 16k x 1": Setting("causal", "", 12, **{**BASE, "length": 1024, "batch_tokens": 16_384}),
    "GPT 124M, 65k x 4": Setting(
        "causal", "", 12, **{**BASE, "length": 1024, "batch_tokens": 262_144, "micro_tokens": 65_536}
    ),
    "BERT-base": Setting("masked", "", 12, **{**BASE, "length": 512}),
    "T5-base": Setting("span_corruption", "", 24, **{**BASE, "length": 512}),
}
SMALL = {"layers": 2, "hidden": 64, "heads": 2, "length": 64, "batch_tokens": 1024, "micro_tokens": 512}


def store(device: str) -> str:
    """The path of the text: PRETEXTLM_GPU_STORE, or speeches of 12 MB; on a CPU a few sentences."""
    if device == "cuda":
        return os.environ.get("PRETEXTLM_GPU_STORE") or speeches(VOCABULARY)
    from tests.builders import make_store

    path = WORK / "sentences"
    return str(path if (path / "manifest.json").exists() else make_store(Path(path)).path)


def setting_of(device: str, name: str) -> Setting:
    """The setting by its name, or a small one of the same objective."""
    given = GPU[name].plain()
    return Setting(**{**given, **({} if device == "cuda" else SMALL), "store": store(device)})


def recipe_of(setting: Setting, device: str, **training: Any) -> dict[str, Any]:
    """A recipe's tables: compiled on a GPU, in bf16, without validations or checkpoints in between."""
    compiled = "on" if device == "cuda" else "off"
    fast = {
        "device": device,
        "dtype": "bf16",
        "compile": compiled,
        "threads": 0,
        "checkpoint_seconds": 1e6,
        "warmup": 0.0,
    }
    values = setting.recipe(**{**fast, **training})
    values["data"]["workers"] = 4 if device == "cuda" else 1
    return values


def wait(device: str) -> None:
    """Waits until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], device: str, times: int = 20) -> float:
    """The median time of a call, after three that do not count; few calls on a CPU."""
    found = []
    for number in range(3 + (times if device == "cuda" else 2)):
        start = time.perf_counter()
        function()
        wait(device)
        if number >= 3:
            found.append(time.perf_counter() - start)
    return median(found)


def memory(device: str) -> int:
    """Most bytes of tensors on the GPU at any time."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else 0
