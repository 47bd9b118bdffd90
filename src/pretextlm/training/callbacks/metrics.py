"""Writes metrics.jsonl, feeds the trackers and shows the progress of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretextlm.training.callbacks.base import Callback, StepMetrics, TrainerView
from pretextlm.training.callbacks.validation import validation_due
from pretextlm.training.metrics import MetricsLog, peak_memory
from pretextlm.training.peak_flops import peak_of_run
from pretextlm.training.trackers import Trackers

if TYPE_CHECKING:
    from pretextlm.training.peak_flops import Peak


class MetricsLogger(Callback):
    """Logs every step; one line per `training.log_every` steps has their means.

    Args:
        log: the file.
    """

    def __init__(self, log: MetricsLog) -> None:
        self.log = log
        self._peak: Peak | None = None

    def on_begin(self, trainer: TrainerView) -> None:
        """Removes lines after the checkpoint that training resumes from, and opens the trackers."""
        if not trainer.distributed.is_main:
            return
        run, config, step = trainer.run, trainer.recipe.training, trainer.state.step
        run.rewind_metrics(step, validated=not validation_due(trainer))
        if missing := run.missing_metrics(step):
            trainer.progress.note(
                f"metrics.jsonl lacks the lines of {len(missing):,} steps before {step:,}, the first of step "
                f"{missing[0]:,}: the curves have a gap"
            )
        self._peak = peak_of_run(run.directory, trainer.runtime.device, trainer.runtime.dtype)
        if config.trackers:
            self.log.trackers = Trackers(config.trackers, run.directory, trainer.recipe, step, trainer.progress.note)

    def on_step(self, trainer: TrainerView, metrics: StepMetrics) -> None:
        """Logs a step."""
        state, plan, every = trainer.state, trainer.plan, trainer.recipe.training.log_every
        values = {
            "step": state.step,
            "tokens": trainer.tokens,
            "seconds": state.seconds,
            "flops": state.flops,
            "loss": metrics.loss,
            "learning_rate": metrics.learning_rate,
            "gradient_norm": metrics.gradient_norm,
            "tokens_per_second": plan.tokens_per_step / metrics.seconds,
            "data_wait": metrics.data_seconds / metrics.seconds,
            "skipped": state.skipped,
        }
        if state.loss_scale:
            values |= {"loss_scale": state.loss_scale, "overflows": state.overflows}
        if self._peak:
            # Model FLOPs utilization: the needed operations over what all devices could do in this time.
            available = self._peak.flops_per_second * trainer.distributed.world_size * metrics.seconds
            values["mfu"] = plan.flops_per_step / available
        if state.step % every == 0:
            values["memory"] = int(trainer.distributed.all_gather([peak_memory(trainer.runtime.device)]).max())
        if trainer.distributed.is_main:
            state.window = self.log.train(values, state.window, every)
        trainer.progress.step(trainer.share, values)

    def on_save(self, trainer: TrainerView) -> None:
        """Flushes the file, so that no checkpoint is ahead of it."""
        if trainer.distributed.is_main:
            self.log.flush()

    def close(self) -> None:
        """Closes the trackers."""
        if self.log.trackers is not None:
            self.log.trackers.close()
