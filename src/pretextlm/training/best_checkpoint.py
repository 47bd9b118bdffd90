"""The best validation of a run: remembered, its weights kept beside the checkpoints, and brought back at the end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.training.checkpoint import newest
from pretextlm.training.checkpoint_writer import Saver

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.training.distributed import DistributedContext
    from pretextlm.training.plan import Position
    from pretextlm.training.recipe import TrainingConfig
    from pretextlm.training.validation import Validation

DIRECTORY = "best"
"""Of the run; like its directory of checkpoints, with one that has weights only. Gone when the run is done."""


class Best:
    """Nothing is written unless the recipe keeps the best weights."""

    def __init__(self, run: Path, config: TrainingConfig, distributed: DistributedContext) -> None:
        self.config, self.distributed, self.directory = config, distributed, run / DIRECTORY
        self.saver = Saver(self.directory, 1, distributed, config.timeout_seconds) if config.keep_best else None

    def judge(self, found: Validation, model: Transformer, at: Position) -> None:
        """Note a validation in the position; keep the weights of the best. The same on all processes.

        Raises UserError where the validation has no such part.
        """
        value = self._value(found)
        if at.best is not None and value >= at.best:
            at.stale += 1
            return
        at.best, at.best_step, at.stale = value, at.step, 0
        if self.saver is not None:
            self.saver.save(at.step, model.state_dict(), {}, vars(at))

    def recall(self, model: Transformer, at: Position, note: Callable[[str], None]) -> None:
        """Give the model its best weights, at the end of the run."""
        if self.saver is None:
            return
        self.saver.wait()
        found = newest(self.directory) if at.best_step != at.step else None
        if found is not None and found.step == at.best_step:
            found.read_into(model.state_dict(), {})
            note(f"the weights are those of step {at.best_step:,}, the best validation")

    def forget(self) -> None:
        """Remove what was kept, when the run's last checkpoint is written."""
        if self.distributed.is_main:
            shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """End what works in the background."""
        if self.saver is not None:
            self.saver.close()

    def _value(self, found: Validation) -> float:
        name = self.config.best_by
        if name == "loss":
            return found.loss
        if name not in found.parts:
            known = ", ".join(["loss", *found.parts])
            raise UserError(f"training.best_by is {name!r}, which no validation has.", f"Here are: {known}.")
        return found.parts[name] if name.endswith("_loss") else -found.parts[name]
