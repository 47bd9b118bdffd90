"""Floating-point operations per second that a training reaches: measured on this machine, or of a known device.

The measurement runs a few steps of the model on random tokens, uncompiled, in about a second, and is kept in the user's
cache: the same model on the same machine is not measured twice.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pretextlm.errors import UserError, did_you_mean
from pretextlm.files import write_json
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.training.forward import Forward
from pretextlm.training.optimizers import Optimizer
from pretextlm.training.peak_flops import GPUS, TERA
from pretextlm.training.recipe import TrainingConfig
from pretextlm.training.runtime import choose_device, choose_dtype, compile_cache, device_name, dtype_name
from pretextlm.training.trial_batch import trial_batch

PROBE_SECONDS, LEAST_STEPS = 0.4, 3
COMPILED_SPEEDUP = 1.4
"""Of a compiled step over an uncompiled one on a CPU, for the models of `sizing.SHAPES` up to a width of 256."""

TYPICAL_UTILIZATION = 0.35
"""Share of its peak that a GPU reaches in training: a usual figure of others, not measured by us."""


@dataclass(frozen=True)
class Device:
    """A device by name.

    Attributes:
        flops_per_second: its peak in the type that a training uses there.
        dtype: that type.
        memory: bytes.
    """

    flops_per_second: float
    dtype: str
    memory: float


def _gpu(name: str, memory: float, dtype: str = "bf16") -> Device:
    return Device(GPUS[name][0] * TERA, dtype, memory)


DEVICES = {
    "b200": _gpu("B200", 180e9),
    "h200": _gpu("H200", 141e9),
    "h100": _gpu("H100", 80e9),
    "a100": _gpu("A100", 80e9),
    "l4": _gpu("L4", 24e9),
    "t4": _gpu("T4", 16e9, "fp16"),
    "5090": _gpu("RTX 5090", 32e9),
    "4090": _gpu("RTX 4090", 24e9),
    "3090": _gpu("RTX 3090", 24e9),
    "laptop": Device(0.5 * TERA, "fp32", 16e9),
}
""""laptop": eight cores with AVX2 at 2 GHz."""


def named_device(name: str) -> Device:
    """Returns the device with this name, in any case.

    Raises:
        UserError: there is none.
    """
    found = DEVICES.get(name.lower())
    if found is None:
        raise UserError(f"There is no device {name!r} here.", did_you_mean(name.lower(), list(DEVICES)))
    return found


def measured_throughput(objective: Objective, model: dict[str, Any], vocab_size: int, length: int, rows: int) -> float:
    """Measure training on this machine, or find an earlier measurement.

    Args:
        objective: what is trained.
        model: table [model] of a recipe.
        vocab_size: of the model.
        length: tokens of a row.
        rows: of a step.

    Returns:
        Floating-point operations per second, of steps that are not compiled.
    """
    device = choose_device()
    dtype = choose_dtype("auto", device)
    machine = [device_name(device), torch.get_num_threads(), torch.__version__, dtype_name(dtype)]
    key = json.dumps([*machine, objective.name, objective.model_dump(mode="json"), model, vocab_size, length, rows])
    file = compile_cache().parent / "throughput.json"
    known = _read(file)
    if key not in known:
        known[key] = _measure(objective, model, vocab_size, length, rows, device, dtype)
        _keep(file, known)
    return known[key]


def _measure(
    objective: Objective,
    model: dict[str, Any],
    vocab_size: int,
    length: int,
    rows: int,
    device: torch.device,
    dtype: torch.dtype,
) -> float:
    batch, _ = trial_batch(objective, length, vocab_size, rows)
    config = ModelConfig.parse({**model, "vocab_size": int(max(vocab_size, batch.input_ids.max() + 1))})
    network = Transformer(config, objective.heads(config)).to(device).train()
    forward = Forward(network, objective, device, dtype)
    optimizer = Optimizer(network, TrainingConfig(budget_steps=1), dtype)
    flops = objective.flops(config, batch)

    def step() -> None:
        terms = objective.step(forward, batch)
        torch.stack([term.total / max(1, term.count) for term in terms.values()]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    step()
    done, start = 0, time.perf_counter()
    while done < LEAST_STEPS or time.perf_counter() - start < PROBE_SECONDS:
        step()
        done += 1
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done * flops / (time.perf_counter() - start)


def _read(file: Path) -> dict[str, float]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {key: float(value) for key, value in found.items() if float(value) > 0}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _keep(file: Path, known: dict[str, float]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
    except (OSError, UserError):
        return  # the cache saves a second, no more
