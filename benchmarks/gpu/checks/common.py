"""What several checks need: errors relative to a reference, small stores, runs by a recipe's tables."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tests.builders import make_store
from torch import Tensor

from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import tune_process

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TRAINING = {
    "budget_steps": 4,
    "batch_tokens": 1024,
    "micro_batch_tokens": 512,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "dtype": "fp32",
    "compile": "off",
    "validations": 0,
    "log_every": 1,
}


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found - wanted‖ / ‖wanted‖ in float64 on the CPU."""
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    assert found.shape == wanted.shape, f"shapes {tuple(found.shape)} and {tuple(wanted.shape)}"
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def assert_near(found: Tensor, wanted: Tensor, most: float, what: str) -> float:
    """Returns the relative error, which may be at most so much, and must be a number."""
    error = relative_error(found, wanted)
    assert error <= most, f"{what}: relative error {error:.1e}, more than {most:.0e}"
    return error


def exact_products() -> None:
    """Turns off TF32, so that fp32 on a GPU is compared with fp32 on a CPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def place() -> Path:
    """A new directory, which goes with the check's process's temporary files."""
    return Path(tempfile.mkdtemp(prefix="gpu-check-"))


def store(pairs: int = 0) -> str:
    """The path of a new small store."""
    return str(make_store(place() / "store", pairs=pairs).path)


def tables(device: str, store: str, objective: Any = "causal", **training: Any) -> dict[str, Any]:
    """A recipe's tables of a small model; `training` over `TRAINING`."""
    return {
        "data": {"store": store, "length": 64},
        "objective": objective,
        "model": SHAPE,
        "training": {**TRAINING, "device": device, **training},
    }


def train(values: Mapping[str, Any], **options: Any) -> Run:
    """Trains by a recipe's tables in a new directory."""
    tune_process()
    exact_products()
    return pretrain(Recipe.load(dict(values)), place() / "run", **options)


def losses(run: Run) -> Tensor:
    """Of all steps."""
    return torch.tensor([line["loss"] for line in run.metrics() if line["kind"] == "train"], dtype=torch.float64)


def environment() -> dict[str, str]:
    """Of a process that runs the command line of this tree."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in ("src", ".", os.environ.get("PYTHONPATH")) if p)}
