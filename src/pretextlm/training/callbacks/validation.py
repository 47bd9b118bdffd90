"""Measures the validation loss at regular shares of the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretextlm.data.document_rows import by_document
from pretextlm.training.callbacks.base import Callback, TrainerView
from pretextlm.training.validation import validate

if TYPE_CHECKING:
    from pretextlm.data.row_reader import RowReader
    from pretextlm.training.callbacks.forgetting import ForgettingMonitor
    from pretextlm.training.metrics import MetricsLog


def validation_number(trainer: TrainerView) -> int:
    """Returns the number of the validation that belongs to this share of the budget."""
    return int(trainer.share * trainer.recipe.training.validations + 1e-9)


def validation_due(trainer: TrainerView) -> bool:
    """Returns whether a validation belongs to this step and was not done yet."""
    return trainer.recipe.training.validations > 0 and validation_number(trainer) > trainer.state.validations


class ValidationLoss(Callback):
    """Validates before the first step and then `training.validations` times.

    An interrupted validation leaves no trace: it is done again when the run resumes.

    Args:
        log: receives the results.
        forgetting: measures other stores at the same steps.
    """

    def __init__(self, log: MetricsLog, forgetting: ForgettingMonitor) -> None:
        self.log, self.forgetting = log, forgetting
        self._opened: RowReader | None = None

    def before_step(self, trainer: TrainerView) -> None:
        """Validates if it is due."""
        if not validation_due(trainer):
            return
        result = validate(
            trainer.forward,
            self._reader(trainer),
            trainer.recipe.training_objective,
            trainer.corpus.vocabulary,
            rows=trainer.recipe.training.validation_rows,
            seed=trainer.recipe.evaluation.seed,
            step=lambda batch: trainer.eval_module(batch)[1],
            distributed=trainer.distributed,
            before_batch=trainer.check_interrupted,
        )
        others = self.forgetting.losses(trainer)
        state = trainer.state
        state.validations = validation_number(trainer)
        at = {"step": state.step, "tokens": trainer.tokens, "seconds": state.seconds, "flops": state.flops}
        if trainer.distributed.is_main:
            self.log.validation({**at, "loss": result.loss, **result.parts})
            for store, found in others:
                self.log.forgetting(store.name, {**at, "loss": found.metric.value})
        beside = "".join(f", on {store.name} {found.metric.value:.4f}" for store, found in others)
        trainer.progress.note(f"step {state.step:,}: validation {result}{beside}")
        trainer.validated(result)

    def _reader(self, trainer: TrainerView) -> RowReader:
        """Returns the reader of the rows that `pretextlm evaluate` reads, too."""
        if self._opened is None:
            self._opened = by_document(trainer.corpus.reader("validation"), trainer.recipe.evaluation.seed)
        return self._opened
