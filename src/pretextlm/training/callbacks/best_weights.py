"""Keeps the weights of the best validation, restores them at the end, and stops when validation stops improving."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.training.callbacks.base import Callback, TrainerView
from pretextlm.training.checkpoint import newest
from pretextlm.training.checkpoint_writer import CheckpointWriter

if TYPE_CHECKING:
    from pretextlm.training.distributed import DistributedContext
    from pretextlm.training.recipe import TrainingConfig
    from pretextlm.training.validation import Validation

DIRECTORY = "best"
"""Subdirectory of the run; like its checkpoints, but with weights only. Removed when the run is finished."""


class BestWeights(Callback):
    """Early stopping (`training.patience`) and the best weights (`training.keep_best`).

    Args:
        run: the run directory.
        config: table [training] of the recipe.
        distributed: the processes that train together.
    """

    def __init__(self, run: Path, config: TrainingConfig, distributed: DistributedContext) -> None:
        self.config, self.directory = config, run / DIRECTORY
        self.writer = (
            CheckpointWriter(self.directory, 1, distributed, config.timeout_seconds) if config.keep_best else None
        )

    def before_step(self, trainer: TrainerView) -> None:
        """Stops a run whose validations no longer improve."""
        if 0 < self.config.patience <= trainer.state.stale:
            trainer.should_stop = True

    def on_validation(self, trainer: TrainerView, result: Validation) -> None:
        """Compares a validation with the best one, and saves the weights if it is better.

        Raises:
            UserError: the validation has no measure of the name `training.best_by`.
        """
        value, state = self._value(result), trainer.state
        if state.best is not None and value >= state.best:
            state.stale += 1
            return
        state.best, state.best_step, state.stale = value, state.step, 0
        if self.writer is not None:
            self.writer.save(state.step, trainer.model.state_dict(), {}, vars(state))

    def on_end(self, trainer: TrainerView) -> None:
        """Restores the best weights."""
        if self.writer is None:
            return
        self.writer.wait()
        state = trainer.state
        found = newest(self.directory) if state.best_step != state.step else None
        if found is not None and found.step == state.best_step:
            found.read_into(trainer.model.state_dict(), {})
            trainer.progress.note(f"the weights are those of step {state.best_step:,}, the best validation")

    def on_finish(self, trainer: TrainerView) -> None:
        """Removes the saved weights: the run's last checkpoint has them."""
        if trainer.distributed.is_main:
            shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Ends the writing thread."""
        if self.writer is not None:
            self.writer.close()

    def _value(self, result: Validation) -> float:
        """Returns the value that is minimized."""
        name = self.config.best_by
        if name == "loss":
            return result.loss
        if name not in result.parts:
            known = ", ".join(["loss", *result.parts])
            raise UserError(f"training.best_by is {name!r}, which no validation has.", f"Validations have: {known}.")
        return result.parts[name] if name.endswith("_loss") else -result.parts[name]
