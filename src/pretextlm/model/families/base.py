"""What a published family of models is to us: a reversible map of its configuration and of the names of its weights.

    Hugging Face                                            ours
    bert.encoder.layer.3.attention.self.query.weight   ↔    encoder.3.self_attn.q_proj.weight
    transformer.h.3.attn.c_attn.weight (D, 3 D)        ↔    decoder.3.self_attn.{q,k,v}_proj.weight, one above the other

Weights are only renamed, transposed, cut or joined, never changed: there and back again is the same bytes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.registry import Registry

FAMILIES = Registry(
    "model family",
    {
        "bert": "pretextlm.model.families.bert:Bert",
    },
)
"""Hugging Face's model_type → our map of it."""

LAYER = "{i}"


@dataclass(frozen=True)
class Map:
    """One tensor of theirs and the one or several of ours that it holds.

    Attributes:
        ours: names of our parameters; several lie one above the other (along the first dimension) in theirs.
        theirs: its name; {i} in both stands for each layer of the stack that our name begins with.
        transposed: theirs is (in, out) where ours is (out, in).
    """

    ours: tuple[str, ...]
    theirs: str
    transposed: bool = False

    def expanded(self, config: ModelConfig) -> Iterator[Map]:
        """One map for each layer."""
        if LAYER not in self.ours[0]:
            yield self
            return
        stack: Literal["encoder", "decoder"] = "encoder" if self.ours[0].startswith("encoder") else "decoder"
        for i in range(1 if config.shared_layers else config.layers(stack)):
            names = tuple(name.replace(LAYER, str(i)) for name in self.ours)
            yield Map(names, self.theirs.replace(LAYER, str(i)), self.transposed)


def same(ours: str, theirs: str) -> Map:
    """A tensor that only has another name."""
    return Map((ours,), theirs)


def layer(ours: str, theirs: str, bias: bool) -> list[Map]:
    """Weight, and bias where there is one, of a module."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]


class Family(ABC):
    """A family of models. One object serves all of its sizes.

    Class attributes: `name`, Hugging Face's model_type; `classes`, its model classes and our architecture of each, the
    one that is written first; `prefix` that a bare model (without a head) leaves out of its names; `ignored`, patterns
    of tensors that hold nothing to carry.
    """

    name: ClassVar[str]
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]]
    prefix: ClassVar[str] = ""
    ignored: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def config_in(self, values: Mapping[str, Any]) -> ModelConfig:
        """Our shape from the values of a config.json. Raises UserError for what the trunk cannot be."""

    @abstractmethod
    def config_out(self, config: ModelConfig) -> dict[str, Any]:
        """Values of a config.json from our shape. Raises UserError for a shape that the family cannot be."""

    @abstractmethod
    def maps(self, config: ModelConfig) -> list[Map]:
        """Every tensor of such a model."""


@dataclass(frozen=True)
class Imported:
    """Weights under our names.

    Attributes:
        weights: name → tensor.
        missing: our names that theirs had nothing for.
        left: their names that were not carried.
    """

    weights: dict[str, Tensor]
    missing: list[str]
    left: list[str]


def weights_in(
    family: Family, config: ModelConfig, theirs: Mapping[str, Tensor], ours: Mapping[str, torch.Size]
) -> Imported:
    """Their tensors under our names.

    Args:
        theirs: all tensors of the checkpoint.
        ours: shapes of our model's parameters.

    Raises:
        UserError: a tensor of another shape than the configuration says.
    """
    rest = {_whole_name(family, name, theirs): tensor for name, tensor in theirs.items()}
    weights: dict[str, Tensor] = {}
    for pattern in family.maps(config):
        for one in pattern.expanded(config):
            if one.theirs not in rest:
                continue
            tensor = rest.pop(one.theirs)
            tensor = tensor.T if one.transposed else tensor
            sizes = [ours[name][0] for name in one.ours]
            expected = (sum(sizes), *ours[one.ours[0]][1:])
            if tuple(tensor.shape) != expected:
                raise UserError(
                    f"The tensor {one.theirs} has shape {tuple(tensor.shape)}; the configuration says {expected}.",
                    "config.json and the weights do not belong together.",
                )
            weights |= dict(zip(one.ours, (part.contiguous() for part in torch.split(tensor, sizes)), strict=True))
    left = [name for name in rest if not any(re.search(pattern, name) for pattern in family.ignored)]
    return Imported(weights, [name for name in ours if name not in weights], left)


def weights_out(family: Family, config: ModelConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under their names. Raises UserError for a tensor that the family has no place for."""
    left, theirs = dict(ours), {}
    for pattern in family.maps(config):
        for one in pattern.expanded(config):
            if one.ours[0] not in left:
                continue
            tensor = torch.cat([left.pop(name) for name in one.ours]) if len(one.ours) > 1 else left.pop(one.ours[0])
            theirs[one.theirs] = (tensor.T if one.transposed else tensor).contiguous()
    if left:
        raise UserError(
            f"A model of the family {family.name!r} has no place for {next(iter(left))}.",
            "Export it as another family.",
        )
    return theirs


def _whole_name(family: Family, name: str, every: Mapping[str, Tensor]) -> str:
    """The name with the prefix that a bare model leaves out."""
    bare = bool(family.prefix) and not any(other.startswith(family.prefix) for other in every)
    return family.prefix + name if bare else name
