"""The head of a task and the names of its classes, as a published class has them, there and back.

    ours                                          theirs
    heads.task.dense, heads.task.out              bert.pooler.dense, classifier
    labels of the task                            id2label, label2id
    mean and spread of a regression's labels      in the matrix and its bias: the class gives the labels' own unit

(model/families/task_classes.py has the table.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.model.families.task_classes import HEAD, TASK_CLASSES, Kind, TaskClass
from pretextlm.tasks.multiple_choice import MultipleChoice
from pretextlm.tasks.question_answering import QuestionAnswering
from pretextlm.tasks.shared.text_input import TextTask
from pretextlm.tasks.text_classification import TextClassification
from pretextlm.tasks.text_regression import TextRegression
from pretextlm.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family
    from pretextlm.objectives.protocol import TrainingObjective

OUT = f"{HEAD}out."
ELSEWHERE = "Export it as another family, or use the run itself: pretextlm evaluate."
SINGLE, MULTI, NUMBER = "single_label_classification", "multi_label_classification", "regression"
"""transformers' names of what a class for texts says."""


def kind_of(task: TrainingObjective) -> Kind | None:
    """What a task says; None for one without a head of its own, which is written as the language model it is."""
    if isinstance(task, MultipleChoice):
        return "choice"
    if isinstance(task, TextTask):
        return "sequence"
    if isinstance(task, TokenClassification):
        return "token"
    return "span" if isinstance(task, QuestionAnswering) else None


def class_of(family: Family, task: TrainingObjective) -> TaskClass:
    """The class that a family has for a task. Raises UserError where it has none that computes what our head does."""
    kind = kind_of(task)
    found = TASK_CLASSES.get(family.name, {}).get(kind) if kind else None
    if found is None:
        raise UserError(f"The family {family.name!r} has no class for {task.name} with a head like ours.", ELSEWHERE)
    if isinstance(task, TextTask) and (task.head or "tanh") != found.form:
        raise UserError(
            f"{found.theirs} has a head of the make {found.form!r}; this run's is {task.head!r}.",
            f'Train it with task.head="{found.form}", or export it as another family.',
        )
    if isinstance(task, TextRegression) and not found.bias and task.mean:
        raise UserError(
            f"{found.theirs} adds no constant to its score, so that the labels' mean {task.mean:g} has no place in it.",
            "Take the mean from the labels before training, or fine-tune an encoder.",
        )
    return found


def head_out(task: TrainingObjective, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors under our names, in the unit of the labels."""
    own = {name: tensor for name, tensor in weights.items() if name.startswith(HEAD)}
    if isinstance(task, TextRegression):
        own = {n: t * task.spread if n.startswith(OUT) else t for n, t in own.items()}
        if f"{OUT}bias" in own:
            own[f"{OUT}bias"] = own[f"{OUT}bias"] + task.mean
    return own


def values_of(found: TaskClass, task: TrainingObjective) -> dict[str, Any]:
    """What config.json says of a fine-tuned model."""
    values: dict[str, Any] = {"architectures": [found.theirs], **found.settings}
    labels = (task.label,) if isinstance(task, TextRegression) else tuple(getattr(task, "labels", ()))
    if labels:
        values["id2label"] = {str(place): name for place, name in enumerate(labels)}
        values["label2id"] = {name: place for place, name in enumerate(labels)}
    if isinstance(task, TextClassification | TextRegression):
        values["problem_type"] = NUMBER if isinstance(task, TextRegression) else SINGLE
    return values


def task_of(
    family: Family, values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[TaskClass, TrainingObjective] | None:
    """(the class, the task) of a published model that was fine-tuned; None for any other.

    Args:
        values: of its config.json.
        shapes: of its tensors.
    """
    named = values.get("architectures")
    for kind, found in TASK_CLASSES.get(family.name, {}).items():
        shape = shapes.get(f"{found.out}.weight")
        if named == [found.theirs] and shape is not None and len(shape) == 2:
            _check_settings(found, values)
            task = _task(kind, found, values, shape[0])
            return (found, task) if task else None
    return None


def _check_settings(found: TaskClass, values: Mapping[str, Any]) -> None:
    """Raises UserError where config.json speaks of a head of another make."""
    for name, wanted in found.settings.items():
        given = values.get(name, wanted)
        if given != wanted:
            raise UserError(
                f"{found.theirs} with {name} = {given!r:.80} has a head of another make than ours.",
                f"Only {name} = {wanted!r} is known.",
            )


def without_pooler(config: ModelConfig, found: TaskClass) -> ModelConfig:
    """The shape where the layer that is elsewhere a pooler is the head's own."""
    if not found.dense:
        return config
    return config.model_copy(update={"head": config.head.model_copy(update={"pooler": False})})


def _task(kind: Kind, found: TaskClass, values: Mapping[str, Any], outputs: int) -> TrainingObjective | None:
    labels = _labels(values, outputs)
    if kind == "span":
        return QuestionAnswering() if outputs == 2 else None
    if kind == "choice":
        return MultipleChoice(head=found.form) if outputs == 1 else None
    if kind == "token":
        return TokenClassification(labels=labels)
    problem = values.get("problem_type") or (NUMBER if outputs == 1 else SINGLE)
    if problem == NUMBER and outputs == 1:
        return TextRegression(head=found.form, mean=0.0, spread=1.0)
    return TextClassification(head=found.form, labels=labels) if problem == SINGLE and outputs > 1 else None


def _labels(values: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """Names of the classes; those that transformers gives where there are none, or not one for each output."""
    given = values.get("id2label")
    names = {str(place): str(name) for place, name in given.items()} if isinstance(given, Mapping) else {}
    found = tuple(names.get(str(place), "") for place in range(outputs))
    if len(set(found)) == outputs and all(found):
        return found
    return tuple(f"LABEL_{place}" for place in range(outputs))
