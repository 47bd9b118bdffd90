"""The objective that a published model is taken to have been trained by: objectives name the models they belong to.

A head that is an objective's own (the discriminator of replaced tokens, the classifier of two sentences) is carried by
importing the model as trained by that objective, so that the run has a place for the head and can train it on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pretextlm.model.families.pretextlm import NAME as OWN
from pretextlm.objectives.registry import OBJECTIVES, build

if TYPE_CHECKING:
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family, HeadClass
    from pretextlm.objectives.base import Objective


OF_DECODERS: Mapping[Any, tuple[str, Mapping[str, Any]]] = {
    "prefix": ("prefix", {}),
    "bidirectional": ("masked", {"predict": "next"}),
}
"""Visibility of a decoder whose code is ours → objective, and its options, with which it reads texts so."""


def objective_of(
    family: Family,
    config: ModelConfig,
    theirs: Collection[str],
    asked: str | None,
    values: Mapping[str, Any],
) -> Objective:
    """Returns the objective that a published model is taken to have been trained by.

    Args:
        family: of the model.
        config: its shape.
        theirs: names of all its tensors.
        asked: name of the objective that the user gives; None to find it.
        values: of its config.json.

    Raises:
        UserError: there is no such objective.
    """
    if asked:
        return build(asked)
    if family.name == OWN and config.architecture == "decoder" and values.get("visibility") in OF_DECODERS:
        return build(*OF_DECODERS[values["visibility"]])
    chosen = build(_published(family.name) or _published(architecture=config.architecture))
    for head in family.heads:
        if not _complete(family, head, config, theirs):
            continue
        trained = build(_published(family.name, head=head.head) or _published(head=head.head))
        if trained.num_token_types() <= config.type_vocab_size:
            chosen = trained
    return chosen


def _published(family: str = "", *, architecture: str = "", head: str = "") -> str:
    """Returns the name of the objective that says so of itself; "" if none does."""
    for name, cls in OBJECTIVES.items():
        for one in vars(cls).get("published_as", ()):  # not inherited: a subclass is another objective
            if (one.family, one.architecture, one.head) == (family, architecture, head):
                return name
    return ""


def _complete(family: Family, head: HeadClass, config: ModelConfig, theirs: Collection[str]) -> bool:
    """Whether all of a head's tensors are there; BERT's pooler alone is no head."""
    names = [one.theirs for one in family.maps(config) if one.ours[0].startswith(f"heads.{head.head}.")]
    return bool(names) and all(name in theirs for name in names)
