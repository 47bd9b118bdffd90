"""Checks that a recipe, its corpus and the runs it refers to fit together, before a run is started."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretextlm.data.tokenizer import same_ids
from pretextlm.errors import UserError
from pretextlm.training.corpus import Corpus
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import TOKENIZER, Run


def check_tokenizers(recipe: Recipe, store: Corpus) -> None:
    """Checks that frozen models and the run to start from have the corpus's tokenizer.

    Raises:
        UserError: one of them has another one.
    """
    start = {"run to start from": recipe.start} if recipe.start and Path(recipe.start).exists() else {}
    for role, place in {**recipe.training_objective.frozen_models(), **start}.items():
        if not same_ids(Run.open(Path(place)).directory / TOKENIZER, store.path / TOKENIZER):
            raise UserError(
                f"The {role} {place} was trained with another tokenizer than {store.path} was prepared with.",
                f"Prepare the text with the {role}'s: pretextlm data prepare … --tokenizer {place}/{TOKENIZER}",
            )


def check_teachers(recipe: Recipe) -> None:
    """Checks that the teachers of a task were trained for the same task with the same labels.

    Raises:
        UserError: a teacher was trained for another task, or has other labels.
    """
    task = recipe.task
    if task is None:
        return
    for role, place in _frozen(recipe):
        teacher = Run.open(Path(place)).recipe
        other = teacher.training_objective
        if teacher.task is None or other.name != task.name:
            raise UserError(
                f"The {role} {place} was trained by {other.name!r}, not for the task {task.name!r}.",
                "Fine-tune it on the same records first: pretextlm finetune RECIPE start=RUN",
            )
        theirs, ours = (list(getattr(one, "labels", ())) for one in (other, task))
        if theirs != ours:
            raise UserError(
                f"The {role} {place} has the labels {', '.join(theirs)}; the task has {', '.join(ours)}.",
                "Give both the same labels in the same order: task.labels = […]",
            )


def check_positions(recipe: Recipe) -> None:
    """Checks that rows are no longer than the position tables of the model and of the frozen models.

    Raises:
        UserError: they are longer than one of them.
    """
    models = {"model": recipe.model}
    models |= {f"{role} {place}": Run.open(Path(place)).recipe.model for role, place in _frozen(recipe)}
    for name, model in models.items():
        rows = model.positions.limit
        if rows is not None and recipe.data.length > rows:
            raise UserError(
                f"data.length is {recipe.data.length}, but the {name} has a table of {rows} positions.",
                f"Give data.length={rows} or less.",
            )


def _frozen(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """Returns (role, run directory) of each frozen model."""
    return recipe.training_objective.frozen_models().items()
