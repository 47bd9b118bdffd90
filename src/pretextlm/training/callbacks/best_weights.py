"""Keeps the weights of the best validation, restores them at the end, and stops when validation stops improving.

The weights are on the disk before any checkpoint names them, and stay there as long as one does: whichever checkpoint
a run is resumed from, the best weights up to it are there. They are verified when training begins and before they are
restored; if they are lost or damaged, that is said, and no state names them any more.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.plain_files import read_json
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.callbacks.base import Callback, StepMetrics, TrainerView
from pretextlm.training.checkpoint_writer import CheckpointWriter

if TYPE_CHECKING:
    from pretextlm.training.distributed import DistributedContext
    from pretextlm.training.recipe import TrainingConfig
    from pretextlm.training.validation import Validation

DIRECTORY = "best"
"""Subdirectory of the run; like its checkpoints, but with weights only. Removed when the run is finished."""
ALL = 1 << 30
"""Number of weights that the writer keeps: `_remove_unnamed` decides which may go."""


class BestWeights(Callback):
    """Early stopping (`training.patience`) and the best weights (`training.keep_best`).

    Args:
        run: the run directory.
        config: table [training] of the recipe.
        distributed: the processes that train together.
    """

    def __init__(self, run: Path, config: TrainingConfig, distributed: DistributedContext) -> None:
        self.config, self.directory, self.checkpoints = config, run / DIRECTORY, run / "checkpoints"
        self.writer = (
            CheckpointWriter(self.directory, ALL, distributed, config.timeout_seconds) if config.keep_best else None
        )

    def on_begin(self, trainer: TrainerView) -> None:
        """Checks that the weights which a resumed state names are there; those of the present step are saved again."""
        state = trainer.state
        if self.writer is None or state.best is None:
            return
        if state.is_best or state.best_step == state.step:
            trainer.distributed.broadcast_from_main(lambda: self._set_aside(state.best_step))
            self._save(trainer)
        else:
            self._forget_if_lost(trainer)

    def before_step(self, trainer: TrainerView) -> None:
        """Stops a run whose validations no longer improve."""
        if 0 < self.config.patience <= trainer.state.stale:
            trainer.should_stop = True

    def on_step(self, trainer: TrainerView, metrics: StepMetrics) -> None:
        """The weights have changed."""
        trainer.state.is_best = False

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
            self._save(trainer)

    def on_save(self, trainer: TrainerView) -> None:
        """Waits until the best weights are on the disk: the checkpoint that follows names them."""
        if self.writer is not None:
            self.writer.wait()
            if trainer.distributed.is_main:
                self._remove_unnamed(trainer.state.best_step)

    def on_end(self, trainer: TrainerView) -> None:
        """Restores the best weights."""
        state = trainer.state
        if self.writer is None:
            return
        self.writer.wait()
        if state.best is None or state.is_best or state.best_step == state.step:
            return
        self._forget_if_lost(trainer)
        if state.best is not None:
            checkpoints.Checkpoint(self._path(state.best_step), state.best_step, {}).read_into(
                trainer.model.state_dict(), {}
            )
            state.is_best = True
            trainer.progress.note(f"the weights are those of step {state.best_step:,}, the best validation")

    def on_finish(self, trainer: TrainerView) -> None:
        """Removes the saved weights: the run's last checkpoint has them."""
        if trainer.distributed.is_main:
            shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """Ends the writing thread."""
        if self.writer is not None:
            self.writer.close()

    def _path(self, step: int) -> Path:
        return checkpoints.checkpoint_path(self.directory, step)

    def _save(self, trainer: TrainerView) -> None:
        """Begins to write the present weights as the best ones."""
        assert self.writer is not None, "called with keep_best only"
        state = trainer.state
        named = {"step": state.best_step, "best": state.best}
        self.writer.save(state.best_step, trainer.model.state_dict(), {}, named)

    def _forget_if_lost(self, trainer: TrainerView) -> None:
        """Forgets a best validation whose weights are lost or damaged: the best one from here on is kept instead."""
        state = trainer.state
        fault = trainer.distributed.broadcast_from_main(lambda: self._set_aside(state.best_step))
        if fault is not None:
            trainer.progress.note(
                f"the best weights so far, of step {state.best_step:,}, are lost ({fault}): those of the best "
                "validation from here on are kept instead"
            )
            state.best, state.best_step, state.stale = None, 0, 0

    def _set_aside(self, step: int) -> str | None:
        """Renames broken weights, so that they can be written again. Returns what is wrong with them, or None."""
        path = self._path(step)
        if not path.exists():
            return f"{path} is missing"
        fault = checkpoints.verify(path)
        if fault is None:
            return None
        checkpoints.set_aside(path)
        return f"{path}: {fault}"

    def _remove_unnamed(self, best_step: int) -> None:
        """Removes weights that neither the state nor any checkpoint names."""
        named = {best_step}
        for directory in checkpoints.steps(self.checkpoints):
            try:
                named.add(read_json(directory / checkpoints.STATE)["best_step"])
            except (OSError, ValueError, KeyError, TypeError):
                return  # a broken checkpoint may have named any of them
        for directory in checkpoints.steps(self.directory):
            if directory not in map(self._path, named):
                checkpoints.remove(directory)

    def _value(self, result: Validation) -> float:
        """Returns the value that is minimized."""
        name = self.config.best_by
        if name == "loss":
            return result.loss
        if name not in result.parts:
            known = ", ".join(["loss", *result.parts])
            raise UserError(f"training.best_by is {name!r}, which no validation has.", f"Validations have: {known}.")
        return result.parts[name] if name.endswith("_loss") else -result.parts[name]
