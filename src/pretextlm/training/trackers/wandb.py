"""Weights & Biases. Its own variables say where to: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE=offline, WANDB_API_KEY."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import ENVIRONMENT

LOGIN_SECONDS = 15.0


class WeightsAndBiases:
    """A resumed run has the same id, which is a hash of its environment.json."""

    name = "wandb"

    def __init__(self, directory: Path, recipe: Recipe, step: int) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pretextlm"),
            name=directory.name,
            id=hashlib.sha256((directory / ENVIRONMENT).read_bytes()).hexdigest()[:12],
            resume="allow",
            dir=str(directory),
            config=recipe.dump(),
            settings=wandb.Settings(silent=True, console="off", login_timeout=LOGIN_SECONDS),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
