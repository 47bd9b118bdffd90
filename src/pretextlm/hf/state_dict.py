"""A run's model under a published family's names: choice of the family and form, and heads that it cannot represent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pretextlm.errors import UserError
from pretextlm.hf.equivalent_weights import POOLER, TABLE, forms, summed
from pretextlm.hf.task_heads import class_of, head_out, values_of
from pretextlm.model.families.pretextlm import NAME as OWN

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family
    from pretextlm.model.families.shared.task_classes import TaskClass
    from pretextlm.tasks.base import Task
    from pretextlm.training.recipe import Recipe

DISCRIMINATOR, GENERATOR = "discriminator", "generator"
"""Models of a run of replaced-token detection; in any other run, the first is the model."""
OWN_HEAD = ("head_layers.", "lm_head.")
"""The language-model head."""

USUAL = ("bert", "llama", "gpt2", "t5", "bart")
"""Families that are tried first if several can represent a model."""
PRESETS = {"encoder": "bert-base-uncased", "decoder": "nanochat-d20", "encoder_decoder": "t5-v1_1-small"}
"""A published shape of each architecture."""


@dataclass(frozen=True)
class Translated:
    """A model under a family's names.

    Attributes:
        family, config: the family, and the shape in the form that it can represent.
        ours, theirs: its tensors in that form, under our names and under the family's.
        values: of config.json.
        lost: heads that the family cannot represent.
        head: for a fine-tuned model, the family's names of the task's head.
        reason: why no class of transformers reads it, if it leaves with its own code unasked.
    """

    family: Family
    config: ModelConfig
    ours: Mapping[str, Tensor]
    theirs: dict[str, Tensor]
    values: dict[str, Any]
    lost: tuple[str, ...]
    head: TaskClass | None = None
    reason: str = ""


def trained_part(recipe: Recipe, weights: Mapping[str, Tensor], part: str) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Select one model of a run.

    Args:
        recipe: of the run.
        weights: all of its tensors.
        part: "discriminator", the model itself, or the "generator" trained with it for replaced-token detection.

    Returns:
        Its shape and tensors.

    Raises:
        UserError: the run has no generator.
    """
    from pretextlm.model.replaced_token_head import generator_config
    from pretextlm.objectives.replaced_token import ReplacedToken

    config, objective = recipe.model, recipe.training_objective
    if part == DISCRIMINATOR:
        # A judge of tokens has a language-model head that was never trained.
        judge = isinstance(objective, ReplacedToken)
        whole = summed(weights)
        return config, {name: t for name, t in whole.items() if not (judge and name.startswith(OWN_HEAD))}
    if not isinstance(objective, ReplacedToken):
        raise UserError("The run has no generator.", "Only runs of replaced_token have one.")
    prefix = f"heads.{GENERATOR}."
    own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    return generator_config(config, objective.generator_size), {TABLE: weights[TABLE], **own}


def translated(
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    name: str | None,
    pad: int | None = None,
    task: Task | None = None,
    bare: bool = False,
) -> Translated:
    """Translate a model to a family.

    Args:
        config, weights: the model.
        name: of the family; None for the first published one that fits, those that represent all its heads first.
        pad: the padding id, from which some families count positions; None: not checked.
        task: whose head replaces the language-model head, or that has none; None for a language model.
        bare: without its language-model head, unless the family's code is ours.

    Returns:
        The model under the family's names.

    Raises:
        UserError: no family fits, or the named one does not.
    """
    from pretextlm.model.families.registry import FAMILIES

    if name is not None:
        return _formed(FAMILIES[name](), config, weights, pad, task, bare)
    others = (known for known in FAMILIES if known not in (*USUAL, OWN))
    families: list[Family] = [FAMILIES[known]() for known in (*USUAL, *others)]
    families.sort(key=lambda family: len(_lost(family, weights)))
    for shape, tensors in forms(config, weights, pad):
        for family in families:
            try:
                return _fitting(family, shape, tensors, pad, task, bare)
            except (UserError, KeyError, ValueError, AttributeError):
                continue
    if task is not None and task.head_kind:  # a family may have a place for all but the head
        class_of(translated(config, _trunk(weights), None, pad).family, task)
    raise UserError(
        "No published family has a model of this shape.",
        f'Train one of a published shape, such as model.preset="{PRESETS[config.architecture]}", with a '
        "model.hidden_size and model.num_hidden_layers of your own (pretextlm params --list).",
    )


def _formed(
    family: Family, config: ModelConfig, weights: Mapping[str, Tensor], pad: int | None, task: Task | None, bare: bool
) -> Translated:
    """Translate a model in the first form that the family can represent.

    Raises:
        UserError: the reason why the model as it is does not fit.
    """
    first: UserError | None = None
    for shape, tensors in forms(config, weights, pad):
        try:
            return _fitting(family, shape, tensors, pad, task, bare)
        except UserError as error:
            first = first or error
    assert first is not None, "a model has one form at least"
    raise first


def _fitting(
    family: Family, config: ModelConfig, weights: Mapping[str, Tensor], pad: int | None, task: Task | None, bare: bool
) -> Translated:
    from pretextlm.model.families.base import hf_config_values, weights_to_hf

    if config.architecture not in family.classes.values():
        raise UserError(
            f"The family {family.name!r} has no model of architecture {config.architecture!r}.",
            "Export it as another family.",
        )
    own = tuple(f"heads.{head.head}." for head in family.heads)
    carried = {name: t for name, t in weights.items() if not name.startswith("heads.") or name.startswith(own)}
    head = class_of(family, task) if task and task.head_kind else None
    if task:
        carried = _trunk(weights)
    dropped = bare and family.name != OWN and not any(name.startswith(own) for name in carried)
    if dropped:
        carried = _trunk(carried)
    values = hf_config_values(family, config, carried)
    if pad is not None and values.get("pad_token_id", pad) != pad:
        raise UserError(
            f"A {family.name} of this shape counts positions on from padding of id {values['pad_token_id']}; this "
            f"run's has the id {pad}, so that other programs would give its tokens other positions.",
            f"Export it with --family bert, or train one with model.positions.offset={pad + 1}.",
        )
    headless = config.head.dense and not any(name.startswith((*own, *OWN_HEAD)) for name in carried)
    if headless or dropped or (task and not head):
        names = (name for name, kind in family.classes.items() if kind == config.architecture and "For" not in name)
        values |= {"architectures": [next(names, values["architectures"][0])]}
    if task and head:
        values |= values_of(head, task)
        carried |= head_out(task, weights)
    theirs = weights_to_hf(family, config, carried, head.maps() if head else ())
    if task and not head:
        theirs = {name.removeprefix(family.prefix): tensor for name, tensor in theirs.items()}
    lost = [name for name in _lost(family, weights) if not (head and name == "task")]
    lost += ["language model"] if dropped and any(name.startswith(OWN_HEAD) for name in weights) else []
    return Translated(family, config, carried, theirs, values, tuple(lost), head)


def _trunk(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights without heads; a pooler, which some forms have, is kept."""
    heads = ("heads.", *OWN_HEAD)
    return {name: t for name, t in weights.items() if not name.startswith(heads) or name.startswith(POOLER)}


def _lost(family: Family, weights: Mapping[str, Tensor]) -> list[str]:
    """Returns the model's heads that the family cannot represent; a generator is a model of its own."""
    known = {head.head for head in family.heads} | {GENERATOR}
    return sorted({name.split(".")[1] for name in weights if name.startswith("heads.")} - known)
