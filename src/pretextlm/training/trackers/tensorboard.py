"""TensorBoard: event files under the run directory. Look at them by `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pretextlm.training.recipe import Recipe


class TensorBoard:
    """A resumed run writes another file, which hides the steps of earlier files after its own first step."""

    name = "tensorboard"

    def __init__(self, directory: Path, recipe: Recipe, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()
