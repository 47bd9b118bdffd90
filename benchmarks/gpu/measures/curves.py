"""Whole trainings of the three architectures by the recipes for a GPU, and their losses over time."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from benchmarks.gpu.isolation import item
from benchmarks.gpu.measures.common import SMALL, store

from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.runtime import tune_process

SECONDS = float(os.environ.get("PRETEXTLM_GPU_SECONDS", 150))
ARCHITECTURES = ("decoder", "encoder", "encoder_decoder")
POINTS = 60


@item("curves", seconds=SECONDS + 120, alone=True, cases=ARCHITECTURES)
def losses(device: str, case: str) -> dict[str, Any]:
    """Steps of training at equal distances, and all validations."""
    tune_process()
    values = tomllib.loads(Path(f"recipes/gpu_30min_{case}.toml").read_text(encoding="utf-8"))
    training = {
        "budget_seconds": SECONDS,
        "device": device,
        "validations": 8,
        "log_every": 1,
        "checkpoint_seconds": 1e6,
    }
    if device == "cpu":
        sizes = {"batch_tokens": SMALL["batch_tokens"], "micro_batch_tokens": SMALL["micro_tokens"]}
        training |= {**sizes, "budget_seconds": 2.0, "compile": "off"}
        values["model"] = {
            "hidden_size": SMALL["hidden"],
            "num_hidden_layers": 2,
            "num_attention_heads": SMALL["heads"],
        }
        values["data"]["length"] = SMALL["length"]
    values["data"]["store"] = store(device)
    values["training"] = {**values["training"], **training}
    with tempfile.TemporaryDirectory() as directory:
        lines = pretrain(Recipe.load(values), Path(directory) / "run").metrics()
    steps = [line for line in lines if line["kind"] == "train"]
    chosen = steps[:: max(1, len(steps) // POINTS)] + [line for line in lines if line["kind"] != "train"]
    return {"steps": len(steps), "last loss": steps[-1]["loss"], "curve": chosen}
