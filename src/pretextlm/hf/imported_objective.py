"""What a published model is taken to have learnt: by its family, its architecture and the heads it comes with.

A head that is an objective's own (the judge of replaced tokens, the one that relates two sentences) is carried by
taking the model for one of that objective, so that the run has a place for it and can train it on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pretextlm.objectives.registry import build

if TYPE_CHECKING:
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.base import Family, WithHead
    from pretextlm.objectives.base import Objective

OF_ARCHITECTURE = {"encoder": "masked", "decoder": "causal", "encoder_decoder": "span_corruption"}
OF_FAMILY = {"bart": "denoising", "mbart": "denoising"}
OF_HEAD = {"pair": "next_sentence", "replaced": "replaced_token"}
OF_FAMILYS_HEAD = {("albert", "pair"): "sentence_order"}
"""Names of objectives; the last that says something counts."""


def objective_of(family: Family, config: ModelConfig, theirs: Collection[str], asked: str | None) -> Objective:
    """The objective a model is taken to have learnt.

    Args:
        theirs: names of all its tensors.
        asked: name of the one that the user says.

    Raises:
        UserError: there is no such objective.
    """
    if asked:
        return build(asked)
    chosen = build(OF_FAMILY.get(family.name) or OF_ARCHITECTURE[config.architecture])
    for head in family.heads:
        if not _whole(family, head, config, theirs):
            continue
        trained = build(OF_FAMILYS_HEAD.get((family.name, head.head)) or OF_HEAD[head.head])
        if trained.num_token_types() <= config.type_vocab_size:
            chosen = trained
    return chosen


def _whole(family: Family, head: WithHead, config: ModelConfig, theirs: Collection[str]) -> bool:
    """Whether all of a head's tensors are there; BERT's pooler alone is no head."""
    names = [one.theirs for one in family.maps(config) if one.ours[0].startswith(f"heads.{head.head}.")]
    return bool(names) and all(name in theirs for name in names)
