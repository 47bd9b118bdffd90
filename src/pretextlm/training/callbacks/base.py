"""The callback protocol of the trainer, and the part of the trainer that callbacks use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.model.transformer import Transformer
    from pretextlm.training.corpus import Corpus
    from pretextlm.training.distributed import DistributedContext
    from pretextlm.training.forward import Forward
    from pretextlm.training.plan import Plan
    from pretextlm.training.progress import Progress
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.run_directory import Run
    from pretextlm.training.runtime import Runtime
    from pretextlm.training.state import TrainerState
    from pretextlm.training.validation import Validation


@dataclass(frozen=True)
class StepMetrics:
    """Measurements of one step, equal on all processes except for the times.

    Attributes:
        step: number of the step, from 1.
        loss: weighted sum of the terms' means over the global batch.
        terms: each term's part of the loss.
        learning_rate: of the step.
        gradient_norm: global norm before clipping.
        seconds: of the step, waiting for data included.
        data_seconds: of these, spent waiting for data.
        skipped: the gradient was not applied (not finite, or a spike).
    """

    step: int
    loss: float
    terms: Mapping[str, float]
    learning_rate: float
    gradient_norm: float
    seconds: float
    data_seconds: float
    skipped: bool


class TrainerView(Protocol):
    """The attributes of the trainer that callbacks may use.

    Attributes:
        run: the run directory.
        recipe: complete, with every default.
        corpus: the data.
        plan: rows, tokens and FLOPs of a step.
        runtime: device, dtype and compilation.
        progress: display for people; one that shows nothing on other processes than the first.
        distributed: the processes that train together; collectives must be called by all of them.
        model: the trained model.
        forward: runs the model, or another model of the objective, on a batch.
        eval_module: module for evaluation: (batch) → (totals, terms).
        state: progress of the training, saved with every checkpoint.
        should_stop: set it to end the training after the current step; all processes must set it alike.
        compile_seconds: seconds spent compiling.
    """

    run: Run
    recipe: Recipe
    corpus: Corpus
    plan: Plan
    runtime: Runtime
    progress: Progress
    distributed: DistributedContext
    model: Transformer
    forward: Forward
    eval_module: nn.Module
    state: TrainerState
    should_stop: bool
    compile_seconds: float

    @property
    def share(self) -> float:
        """Share of the budget used."""
        ...

    @property
    def tokens(self) -> int:
        """Text tokens read so far."""
        ...

    def check_interrupted(self) -> None:
        """Raises Interrupted if a signal came to any process. To be called by all, before each unit of long work."""
        ...

    def validated(self, result: Validation) -> None:
        """Passes a validation to the callbacks."""
        ...


class Callback:
    """Base of callbacks: override any of the methods.

    They are called on every process, in the order of the list that `pretrain` is given. An exception ends the run; its
    checkpoints stay.
    """

    def on_begin(self, trainer: TrainerView) -> None:
        """Before the first step, after a checkpoint was loaded and the model compiled."""

    def before_step(self, trainer: TrainerView) -> None:
        """Before each step, and once more after the last one."""

    def on_step(self, trainer: TrainerView, metrics: StepMetrics) -> None:
        """After each step."""

    def on_validation(self, trainer: TrainerView, result: Validation) -> None:
        """After each validation."""

    def on_save(self, trainer: TrainerView) -> None:
        """Before each checkpoint is written."""

    def on_end(self, trainer: TrainerView) -> None:
        """When the budget is used or training stops early (not by a signal), before the last checkpoint."""

    def on_finish(self, trainer: TrainerView) -> None:
        """When the last checkpoint of a finished run is on disk."""

    def close(self) -> None:
        """Releases resources, however the run ends."""
