"""Fine-tuning: training by a recipe of a task, whose scores are checked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import check_scores
from pretextlm.files import AnyPath
from pretextlm.training.callbacks.base import Callback
from pretextlm.training.initial_weights import resolve_recipe
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Progress
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run


def finetune(
    recipe: Recipe | AnyPath | Mapping[str, Any],
    out: AnyPath,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    command: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """Fine-tune a model by the recipe of a task; `evaluate` scores it afterwards.

    Args:
        recipe: a recipe with a task, the path of a TOML file, or its tables.
        out: a new directory or, with `resume`, the one of a run to resume (which is started if it does not exist).
        resume: continue from the newest checkpoint.
        callbacks: called during training, after the built-in ones.
        command: argv to record, so that the run can be repeated.
        progress: called after every step; nothing is printed without it.

    Returns:
        The run.

    Raises:
        UserError: as :func:`pretextlm.pretrain`; the recipe has no task; a score needs a package that is not installed.
        Stopped: a signal arrived; a checkpoint of that step was written.
    """
    resolved = resolve_recipe(recipe)
    if resolved.task is None:
        raise UserError("The recipe has no task to fine-tune for.", "Objectives are trained by pretrain.")
    check_scores(resolved.task)
    return pretrain(resolved, out, resume=resume, callbacks=callbacks, command=command, progress=progress)
