"""What must fit together before a run begins."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pretextlm.data.store import sha256_of
from pretextlm.errors import UserError
from pretextlm.training.corpus import Corpus
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import TOKENIZER, Run


def check_tokenizers(recipe: Recipe, store: Corpus) -> None:
    """Raises UserError when a frozen model, or the one to start from, has other tokens than the store."""
    expected = sha256_of(store.path / TOKENIZER)
    start = {"run to start from": recipe.start} if recipe.start and Path(recipe.start).exists() else {}
    for role, place in {**recipe.training_objective.frozen_models(), **start}.items():
        if sha256_of(Run.open(Path(place)).directory / TOKENIZER) != expected:
            raise UserError(
                f"The {role} {place} was trained with another tokenizer than {store.path} was prepared with.",
                f"Prepare the text with the {role}'s: pretextlm data prepare … --tokenizer {place}/{TOKENIZER}",
            )


def check_teachers(recipe: Recipe) -> None:
    """Raises UserError when a task is to be learnt from a run of another task, or of other classes."""
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
                f"The {role} {place} tells apart {', '.join(theirs)}; the task has {', '.join(ours)}.",
                "Give both the same labels in the same order: task.labels = […]",
            )


def check_positions(recipe: Recipe) -> None:
    """Raises UserError when rows are longer than the table of positions of the model, or of one that takes part."""
    models = {"model": recipe.model}
    models |= {f"{role} {place}": Run.open(Path(place)).recipe.model for role, place in _frozen(recipe)}
    for name, model in models.items():
        rows = model.positions.max_position_embeddings - model.positions.offset
        if model.positions.kind == "learned" and recipe.data.length > rows:
            raise UserError(
                f"data.length is {recipe.data.length}, but the {name} has a table of {rows} positions.",
                f"Give data.length={rows} or less.",
            )


def _frozen(recipe: Recipe) -> Iterable[tuple[str, str]]:
    """(role, run) of the models that take part without being trained."""
    return recipe.training_objective.frozen_models().items()
