"""The head of a task as a published class has it, in both directions.

    ours                                          published
    heads.task.dense, heads.task.out              bert.pooler.dense, classifier
    labels of the task                            id2label, label2id
    mean and spread of a regression's labels      folded into the last layer, whose output is in the labels' own unit

A family lists its classes (model/families/shared/task_classes.py); a task says which kind it is and how it translates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.model.families.shared.task_classes import HEAD_FORM, TaskClass
from pretextlm.tasks.base import HEAD, Task
from pretextlm.tasks.registry import TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family
    from pretextlm.training.recipe import Recipe

ELSEWHERE = "Export it as another family, or use the run itself: pretextlm evaluate."


def exported_task(recipe: Recipe) -> Task | None:
    """Returns the task whose model a run leaves as; None for a language model, which tasks that write text have, too.

    A task without a head of its own leaves as the bare model.
    """
    from pretextlm.tasks.shared.writing import WritingTask

    return None if isinstance(recipe.task, WritingTask) else recipe.task


def class_of(family: Family, task: Task) -> TaskClass:
    """Returns the family's class for a task.

    Raises:
        UserError: the family has none that computes the same as the task's head.
    """
    found = family.task_class(task.head_kind, getattr(task, "head", "")) if task.head_kind else None
    if found is None:
        raise UserError(f"The family {family.name!r} has no class for {task.name} with a head like ours.", ELSEWHERE)
    task.check_head_class(found)
    return found


def head_out(task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the head's tensors under our names, with outputs in the labels' own unit."""
    return dict(task.published_head({name: tensor for name, tensor in weights.items() if name.startswith(HEAD)}))


def values_of(found: TaskClass, task: Task) -> dict[str, Any]:
    """Returns the part of config.json that describes the task and its head."""
    return {"architectures": [found.theirs], **found.settings, **task.published_values()}


def task_of(
    family: Family, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[TaskClass, Task] | None:
    """Returns (the class, the task) of a published model that was fine-tuned; None for any other.

    Args:
        family: of the model.
        values: of its config.json.
        shapes: of its tensors.

    Raises:
        UserError: config.json describes a head that computes something else.
    """
    named = values.get("architectures")
    for kind in family.task_classes:
        found = family.task_class(kind, str(values.get(HEAD_FORM, "")))
        shape = shapes.get(f"{found.out}.weight") if found else None
        if found and named == [found.theirs] and shape is not None and len(shape) == 2:
            _check_settings(found, values)
            tasks = (cls.from_published(found, values, shape[0]) for cls in TASKS.values() if cls.head_kind == kind)
            return next(((found, task) for task in tasks if task is not None), None)
    return None


def _check_settings(found: TaskClass, values: Mapping[str, Any]) -> None:
    """Raises UserError where config.json describes a head that computes something else."""
    for name, wanted in found.settings.items():
        given = values.get(name, wanted)
        if given != wanted:
            raise UserError(
                f"{found.theirs} with {name} = {given!r:.80} has a head of another make than ours.",
                f"Only {name} = {wanted!r} is known.",
            )


def without_pooler(config: ModelConfig, found: TaskClass) -> ModelConfig:
    """Returns the shape without a pooler where the class's dense layer, which has the pooler's name, is the head's."""
    if not found.dense:
        return config
    return config.model_copy(update={"head": config.head.model_copy(update={"pooler": False})})
