"""The pooler of a bare encoder: a layer over [CLS] that no language model reads, kept so that it can be given back.

Where a head of ours reads it (next sentence, sentence order), it is that head's, and not this one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.shared.tensor_maps import Map, layer

OURS = "head_layers.pooler"
READERS = ("cls.seq_relationship.weight", "sop_classifier.classifier.weight")
"""Tensors of the heads that read it."""


def with_pooler(config: ModelConfig, there: bool) -> ModelConfig:
    """The shape with it, or without."""
    return config.model_copy(update={"head": config.head.model_copy(update={"pooler": there})})


def has_pooler(family: Family, pooler: str, theirs: Collection[str]) -> bool:
    """Whether a checkpoint of these tensors has one by itself.

    Args:
        pooler: its name with the family's prefix, which a bare model leaves out.
    """
    names = (pooler, pooler.removeprefix(family.prefix))
    whole = any(f"{name}.weight" in theirs and f"{name}.bias" in theirs for name in names)
    return whole and not any(reader in theirs for reader in READERS)


def pooler_in(family: Family, config: ModelConfig, values: Mapping[str, Any]) -> ModelConfig:
    """The shape as a config.json says it: a bare model has one."""
    return with_pooler(config, values.get("architectures") == [_bare(family)])


def pooler_out(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Values of a config.json: a model with a pooler is a bare one."""
    return {"architectures": [_bare(family)]} if config.head.pooler else {}


def pooler_maps(config: ModelConfig, pooler: str) -> list[Map]:
    """Its tensors, where there is one."""
    return layer(OURS, pooler, bias=True) if config.head.pooler else []


def _bare(family: Family) -> str:
    return next(name for name in family.classes if "For" not in name)
