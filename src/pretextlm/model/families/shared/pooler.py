"""The pooler of a bare encoder: a layer over [CLS] that no language model reads, kept so that it can be given back.

Where a head of ours reads it (next sentence, sentence order), it is that head's, and not this one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import Family
from pretextlm.model.families.shared.tensor_maps import TensorMap, layer

OURS = "head_layers.pooler"
READERS = ("cls.seq_relationship.weight", "sop_classifier.classifier.weight")
"""Tensors of the heads that read it."""


def with_pooler(config: ModelConfig, there: bool) -> ModelConfig:
    """Returns the shape with a pooler, or without."""
    return config.model_copy(update={"head": config.head.model_copy(update={"pooler": there})})


def has_pooler(family: Family, pooler: str, theirs: Collection[str]) -> bool:
    """Returns whether a checkpoint has a pooler that no head of ours reads.

    Args:
        family: The family.
        pooler: Name of the pooler with the family's prefix, which a bare model leaves out.
        theirs: Names of all tensors of the checkpoint.
    """
    names = (pooler, pooler.removeprefix(family.prefix))
    found = any(f"{name}.weight" in theirs and f"{name}.bias" in theirs for name in names)
    return found and not any(reader in theirs for reader in READERS)


def pooler_from_hf(family: Family, config: ModelConfig, values: Mapping[str, Any]) -> ModelConfig:
    """Returns the shape by a config.json: a bare model has a pooler."""
    return with_pooler(config, values.get("architectures") == [_bare(family)])


def pooler_to_hf(family: Family, config: ModelConfig) -> dict[str, Any]:
    """Returns values of a config.json: a model with a pooler is a bare one."""
    return {"architectures": [_bare(family)]} if config.head.pooler else {}


def pooler_maps(config: ModelConfig, pooler: str) -> list[TensorMap]:
    """Returns the maps of the pooler, where there is one."""
    return layer(OURS, pooler, bias=True) if config.head.pooler else []


def _bare(family: Family) -> str:
    return next(name for name in family.classes if "For" not in name)
