"""A run that starts from the weights of another one: continued pre-training, with the same objective or another one.

The model's shape and the tokenizer are those of the other run; heads that only the new objective has are initialised
from the new run's seed. A task takes over the head of the same task with the same labels; without one, the pooler of a
published model (a layer over [CLS]) initialises a head of that kind. Files kept from an import are copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretextlm.config import read_toml
from pretextlm.errors import UserError
from pretextlm.files import AnyPath
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.finite import check_finite
from pretextlm.shipped_recipes import recipe_file
from pretextlm.tasks.base import HEAD
from pretextlm.tasks.registry import TASKS
from pretextlm.training.auto_size import with_size
from pretextlm.training.recipe import Recipe, overridden
from pretextlm.training.recipe_paths import found_beside
from pretextlm.training.run_directory import ORIGIN, Run
from pretextlm.training.run_manifest import provenance_of

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.transformer import Transformer
    from pretextlm.tasks.base import Task

HEADS, POOLER = "heads.", "head_layers.pooler."


def resolve_recipe(
    source: Recipe | AnyPath | Mapping[str, Any], overrides: Sequence[str] = (), resumed: AnyPath | None = None
) -> Recipe:
    """Returns the recipe of a run to be trained.

    If it starts from another run, its model has that run's shape: always if it comes from a file or tables, so that any
    recipe can be continued from any run; if it is a recipe object, unless its model was given.

    Args:
        source: a recipe, the path of a TOML file, the name of a recipe of the package, or its tables.
        overrides: such as "training.learning_rate=1e-3", for a file or tables.
        resumed: directory of a run that is resumed, from which `model = "auto"` takes the size.

    Raises:
        UserError: the recipe is wrong, or it starts from a directory that is not a run.
    """
    if not isinstance(source, Recipe):
        if isinstance(source, Mapping):
            values, where = dict(source), ""
        else:
            file = recipe_file(source)
            values, where = found_beside(read_toml(file), file), os.fspath(source)
        directory = None if resumed is None else Path(resumed)
        return Recipe.load(with_size(with_start(overridden(values, overrides)), directory), where=where)
    if not source.start or "model" in source.model_fields_set:
        return source
    values = source.dump()
    if source.task is not None and "head" not in source.task.model_fields_set:
        values["task"].pop("head", None)
    return Recipe.load(with_start(values))


def with_start(values: Mapping[str, Any]) -> dict[str, Any]:
    """Takes the model's shape, and the kind of a task's head, from the run named by `start`.

    If there is no such directory, nothing is changed: a run that was started from it can be resumed without it.

    Args:
        values: a recipe's tables.

    Returns:
        The tables, with [model] of the other run; a task's head is of the same kind as the other run's head, or as that
        of the published model it was imported from, unless the recipe names one.

    Raises:
        UserError: `start` exists and is not a run.
    """
    start = values.get("start")
    if not isinstance(start, str) or not start or not Path(start).exists():
        return dict(values)
    run = Run.open(Path(start))
    return {**_with_head_kind(values, run), "model": run.recipe.dump()["model"]}


def _with_head_kind(values: Mapping[str, Any], start: Run) -> dict[str, Any]:
    """Returns the tables with the kind of a task's head, if the task has a head and does not name its kind."""
    given = values.get("task")
    task = {"name": given} if isinstance(given, str) else given
    name = task.get("name") if isinstance(task, Mapping) else None
    fields = TASKS[name].model_fields if isinstance(name, str) and name in TASKS else {}
    if not isinstance(task, Mapping) or "head" not in fields or "head" in task:
        return dict(values)
    imported = provenance_of(start.directory).get("imported")
    family = str(imported.get("family")) if isinstance(imported, Mapping) else ""
    form = getattr(start.recipe.training_objective, "head", "") or _head_kind_of(family)
    return {**values, "task": {**task, "head": form}} if form else dict(values)


def _head_kind_of(family: str) -> str:
    """Returns the kind of head of a family's sequence classifier; "" if it has none."""
    found = FAMILIES[family].task_classes.get("sequence") if family in FAMILIES else None
    return found.form if found else ""


def check_start(recipe: Recipe) -> None:
    """Checks that the recipe's model is that of the run it starts from.

    Raises:
        UserError: it differs, or has too few token types for the objective.
    """
    start = Run.open(Path(recipe.start))
    theirs, ours = start.recipe.model.model_dump(), recipe.model.model_dump()
    for name, value in theirs.items():
        if value != ours[name]:
            raise UserError(
                f"The recipe says model.{name} = {ours[name]}, the run {recipe.start} it starts from has {value}.",
                "Leave the table [model] out: it is then taken from that run.",
            )
    parts = recipe.training_objective.num_token_types()
    if parts > recipe.model.type_vocab_size:
        raise UserError(
            f"The objective {recipe.training_objective.name!r} has {parts} token types; {recipe.start} has "
            f"{recipe.model.type_vocab_size}.",
            "Start from a run that was trained with token types, or choose another objective.",
        )


def load_start(model: Transformer, recipe: Recipe) -> list[str]:
    """Loads the newest weights of the run that the recipe starts from.

    Args:
        model: its parameters are replaced in place.
        recipe: names the run by `start`.

    Returns:
        Names of the parameters of heads that keep their initialisation.

    Raises:
        UserError: that run has no checkpoint that verifies, or lacks parameters outside the heads.
    """
    start = Run.open(Path(recipe.start))
    found = start.checkpoint
    if found is None:
        raise UserError(f"{recipe.start} has no checkpoint to start from.", "Train it first, or import it again.")
    theirs = start.load_model().state_dict() if start.recipe.tuning.lora else found.model()
    check_finite(theirs, str(found.directory))
    wanted = model.state_dict()
    theirs = _with_head(dict(theirs), start.recipe.task, recipe.task)
    used = {name: tensor for name, tensor in theirs.items() if name in wanted and tensor.shape == wanted[name].shape}
    missing = [name for name in wanted if name not in used]
    lost = next((name for name in missing if not name.startswith(HEADS)), None)
    if lost is not None:
        raise UserError(f"{recipe.start} has no weights for {lost}.", "Start from a run of the same model.")
    model.load_state_dict(used, strict=False)
    return missing


def _with_head(weights: dict[str, Tensor], before: Task | None, now: Task | None) -> dict[str, Tensor]:
    """Returns the weights, with those that a task's head can start from and without those of another task's head."""
    if now is None:
        return weights
    same = before is not None and (before.name, _labels(before)) == (now.name, _labels(now))
    if not same:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(HEAD)}
    elif before is not None:
        weights |= now.head_of_same_task(before, {n: t for n, t in weights.items() if n.startswith(HEAD)})
    if getattr(now, "head", "") == "tanh":
        for part in ("weight", "bias"):
            if f"{POOLER}{part}" in weights:
                weights.setdefault(f"{HEAD}dense.{part}", weights[f"{POOLER}{part}"])
    return weights


def _labels(task: Task) -> list[str]:
    return list(getattr(task, "labels", ()))


def carry_origin(start: Path, directory: Path) -> dict[str, Any]:
    """Copies the files that the run `start` kept from its import.

    Args:
        start: directory of the run that the new one starts from.
        directory: of the new run.

    Returns:
        Values for the new run's manifest: the import, and whether the model was pruned.
    """
    if (start / ORIGIN).is_dir() and not (directory / ORIGIN).exists():
        shutil.copytree(start / ORIGIN, directory / ORIGIN)
    return provenance_of(start)
