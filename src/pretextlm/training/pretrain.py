"""Training a model by a recipe into a run directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from datetime import datetime
from pathlib import Path
from typing import Any

from pretextlm.files import AnyPath
from pretextlm.memory import memory_errors
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.callbacks.base import Callback
from pretextlm.training.callbacks.best_weights import BestWeights
from pretextlm.training.callbacks.cost import CostMeter
from pretextlm.training.callbacks.forgetting import ForgettingMonitor
from pretextlm.training.callbacks.metrics import MetricsLogger
from pretextlm.training.callbacks.validation import ValidationLoss
from pretextlm.training.distributed import DistributedContext, process_group
from pretextlm.training.forgetting import recorded_stores
from pretextlm.training.initial_weights import resolve_recipe
from pretextlm.training.memory_plan import refuse_too_large
from pretextlm.training.metrics import MetricsLog
from pretextlm.training.progress import Progress, Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import CHECKPOINTS, Run, locked
from pretextlm.training.run_setup import Setup, set_up
from pretextlm.training.run_start import start_run
from pretextlm.training.signals import StopFlag
from pretextlm.training.time_limit import stop_time
from pretextlm.training.trainer import Trainer
from pretextlm.training.watchdog import watched


def pretrain(
    recipe: Recipe | AnyPath | Mapping[str, Any],
    out: AnyPath,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Train a model by a recipe, and write checkpoints and metrics into a run directory.

    Args:
        recipe: a recipe, the path of a TOML file, or its tables.
        out: a new directory or, with `resume`, the one of a run to resume (which is started if it does not exist).
        resume: continue from the newest checkpoint; on a CPU the result is bit for bit that of an uninterrupted run.
        callbacks: called during training, after the built-in ones.
        command: argv to record, so that the run can be repeated.
        progress: called after every step; nothing is printed without it.

    Returns:
        The run.

    Raises:
        UserError: wrong recipe, store or machine; a directory in use or not empty; a full disk; a loss that is
            not finite; another process of the run is lost or hangs.
        Stopped: SIGINT, SIGTERM, SIGHUP or SIGUSR1 came, or the time of `training.stop_at`; a checkpoint of that step
            was written.
    """
    recipe, directory = resolve_recipe(recipe, resumed=out if resume else None), Path(out)
    limit = stop_time(recipe.training.stop_at)
    with ExitStack() as stack:
        distributed = stack.enter_context(process_group(recipe.training.timeout_seconds, recipe.training.join_seconds))
        watch = stack.enter_context(watched(distributed, directory, recipe.training.timeout_seconds))
        progress = progress if progress and distributed.is_main else Silent()
        stack.enter_context(_memory_errors(recipe))
        setup = set_up(recorded_stores(recipe, directory) if resume else recipe, distributed)
        progress.note("; ".join(setup.notes))
        refuse_too_large(setup.recipe, setup.memory, setup.runtime.device, distributed.is_main)
        distributed.broadcast_from_main(lambda: stack.enter_context(locked(directory)))
        if limit is not None:
            progress.note(
                f"stops with a checkpoint at {datetime.fromtimestamp(limit[0]):%Y-%m-%d %H:%M:%S} ({limit[1]})"
            )
        stop = stack.enter_context(StopFlag(limit[0] if limit else None))
        checkpoint = distributed.broadcast_from_main(lambda: _found(directory) if resume else None)
        progress.note(distributed.broadcast_from_main(lambda: start_run(setup, directory, resume, checkpoint, command)))
        run = Run.open(directory)
        watch.alive()
        trainer = Trainer(
            run,
            setup.corpus,
            setup.plan,
            setup.runtime,
            progress,
            distributed,
            fresh=checkpoint is None,
            callbacks=[*default_callbacks(run, setup, distributed), *callbacks],
        )
        stack.enter_context(closing(trainer))
        watch.alive()
        trainer.restore(checkpoint)
        trainer.train(stop, watch.alive)
    return run


def _memory_errors(recipe: Recipe) -> AbstractContextManager[None]:
    return memory_errors(
        f"in training on rows of data.length = {recipe.data.length:,}",
        "Give a smaller data.length, training.micro_batch_tokens or model, or "
        'training.gradient_checkpointing="blocks"; --dry-run shows what each of them takes.',
    )


def _found(directory: Path) -> checkpoints.Checkpoint | None:
    """Returns the checkpoint to resume from; None if there is none yet."""
    return checkpoints.newest(directory / CHECKPOINTS, quarantine=True)


def default_callbacks(run: Run, setup: Setup, distributed: DistributedContext) -> list[Callback]:
    """Returns the callbacks of every training, in the order in which they are called."""
    log, forgetting = MetricsLog(run), ForgettingMonitor(setup.monitored, run.directory)
    return [
        ValidationLoss(log, forgetting),
        BestWeights(run.directory, setup.recipe.training, distributed),
        forgetting,
        CostMeter(setup.runtime, distributed),
        MetricsLogger(log),
    ]
