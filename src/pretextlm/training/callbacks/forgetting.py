"""Monitors forgetting: the loss on other stores before training, at every validation, and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from pretextlm.training.callbacks.base import Callback, TrainerView
from pretextlm.training.forgetting import MonitoredStore, StoreLoss, record_losses
from pretextlm.training.forward import Forward


class ForgettingMonitor(Callback):
    """Measures other stores at most once per step, in fp32 as `pretextlm evaluate` does.

    Args:
        stores: the monitored stores; without any, nothing is done.
        run: the run directory, for the record of the first and last losses.
    """

    def __init__(self, stores: Sequence[MonitoredStore], run: Path) -> None:
        self.stores, self._run = stores, run
        self._found: tuple[int, list[tuple[MonitoredStore, StoreLoss]]] | None = None

    def losses(self, trainer: TrainerView) -> list[tuple[MonitoredStore, StoreLoss]]:
        """Returns each store with its loss at this step.

        Raises:
            Interrupted: a signal came.
        """
        step = trainer.state.step
        if self._found is None or self._found[0] != step:
            found = []
            for store in self.stores:
                forward = Forward(trainer.model, store.objective, trainer.runtime.device, torch.float32)
                way = store.objective, forward
                measure = partial(lambda way, batch: trainer.eval_module(batch, way)[1], way)
                found.append(
                    (store, store.measure(trainer.model, measure, trainer.distributed, trainer.check_interrupted))
                )
            self._found = step, found
        return self._found[1]

    def before_step(self, trainer: TrainerView) -> None:
        """Records the losses before the first step; if interrupted, the next start does."""
        if self.stores and not trainer.state.step:
            found = self.losses(trainer)
            trainer.distributed.broadcast_from_main(lambda: record_losses(self._run, "before", 0, found))

    def on_end(self, trainer: TrainerView) -> None:
        """Records the losses of the final weights.

        Raises:
            Interrupted: a signal came first.
        """
        if self.stores:
            # The best weights may have been restored: then the last losses are those of other weights.
            self._found = None if trainer.recipe.training.keep_best else self._found
            found = self.losses(trainer)
            trainer.distributed.broadcast_from_main(
                lambda: record_losses(self._run, "after", trainer.state.step, found)
            )
