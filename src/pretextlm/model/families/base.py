"""What a published family of models is to us: a reversible map of its configuration and of the names of its weights.

    Hugging Face                                            ours
    bert.encoder.layer.3.attention.self.query.weight   ↔    encoder.3.self_attn.q_proj.weight
    transformer.h.3.attn.c_attn.weight (D, 3 D)        ↔    decoder.3.self_attn.{q,k,v}_proj.weight, one above the other

Weights are only renamed, transposed, cut or joined, never changed: there and back again is the same bytes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.shared.task_classes import Kind, TaskClass
from pretextlm.model.families.shared.tensor_maps import Map

OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names in checkpoints that were converted long ago."""


@dataclass(frozen=True)
class WithHead:
    """What a model with one of our heads is written as.

    Attributes:
        head: its name among the heads of a model.
        theirs: the class that has a place for it.
        without: patterns of our parameters that this class has no place for.
        rows: parameters of ours whose number of rows this class fixes.
    """

    head: str
    theirs: str
    without: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


class Family(ABC):
    """A family of models. One object serves all of its sizes.

    Class attributes: `name`, Hugging Face's model_type; `classes`, its model classes and our architecture of each, the
    one that is written first; `prefix` that a bare model (without a head) leaves out of its names; `ignored`, patterns
    of tensors that hold nothing to carry; `copies`, tensors that must equal one of ours and are then not carried;
    `decoder_start`, the special token that the decoder over an encoder begins with as published; `heads`, those of ours
    that a class of theirs has too (a model that was built without such a head leaves its tensors where they are);
    `task_classes`, its classes of fine-tuned models whose heads compute what ours do.
    """

    name: ClassVar[str]
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]]
    prefix: ClassVar[str] = ""
    ignored: ClassVar[tuple[str, ...]] = ()
    copies: ClassVar[Mapping[str, str]] = MappingProxyType({})
    decoder_start: ClassVar[Literal["pad", "eos"]] = "pad"
    heads: ClassVar[tuple[WithHead, ...]] = ()
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = MappingProxyType({})

    @abstractmethod
    def config_in(self, values: Mapping[str, Any]) -> ModelConfig:
        """Our shape from the values of a config.json. Raises UserError for what the trunk cannot be."""

    def settled(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        """The shape after a look at the names of all tensors, where config.json alone does not say it."""
        return config

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
    family: Family,
    config: ModelConfig,
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, torch.Size],
    more: Iterable[Map] = (),
) -> Imported:
    """Their tensors under our names.

    Args:
        theirs: all tensors of the checkpoint.
        ours: shapes of our model's parameters.
        more: tensors that are not of every such model: the head of a task.

    Raises:
        UserError: a tensor of another shape than the configuration says.
    """
    rest = {_whole_name(family, name, theirs): tensor for name, tensor in theirs.items()}
    weights: dict[str, Tensor] = {}
    for pattern in (*more, *family.maps(config)):
        for one in pattern.expanded(config):
            if one.theirs not in rest or any(name not in ours for name in one.ours):
                continue
            tensor = rest.pop(one.theirs)
            tensor = _ours(one, tensor)
            sizes = [ours[name][0] for name in one.ours]
            expected = (sum(sizes), *ours[one.ours[0]][1:])
            if tuple(tensor.shape) != expected:
                raise UserError(
                    f"The tensor {one.theirs} has shape {tuple(tensor.shape)}; the configuration says {expected}.",
                    "config.json and the weights do not belong together.",
                )
            weights |= dict(zip(one.ours, (part.contiguous() for part in torch.split(tensor, sizes)), strict=True))
    for name in [name for name in rest if name in family.copies]:
        _check_copy(family, name, rest.pop(name), weights)
    left = [name for name in rest if not any(re.search(pattern, name) for pattern in family.ignored)]
    return Imported(weights, [name for name in ours if name not in weights], left)


def weights_out(
    family: Family, config: ModelConfig, ours: Mapping[str, Tensor], more: Iterable[Map] = ()
) -> dict[str, Tensor]:
    """Our tensors under their names. Raises UserError for a tensor that the family has no place for."""
    head = _with_head(family, ours)
    left, theirs = dict(ours), {}
    if head:
        for name, rows in head.rows.items():
            if len(ours[name]) != rows:
                raise UserError(
                    f"{head.theirs} has {rows} rows in the place of {name}; this model has {len(ours[name])}.",
                    f"Export it without its head {head.head!r}.",
                )
        left = {n: t for n, t in ours.items() if not any(re.match(pattern, n) for pattern in head.without)}
    for pattern in (*more, *family.maps(config)):
        for one in pattern.expanded(config):
            if one.ours[0] not in left:
                continue
            tensor = torch.cat([left.pop(name) for name in one.ours]) if len(one.ours) > 1 else left.pop(one.ours[0])
            tensor = tensor[None] if one.lifted else tensor
            theirs[one.theirs] = (tensor.T if one.transposed else tensor).contiguous()
    if left:
        raise UserError(
            f"A model of the family {family.name!r} has no place for {next(iter(left))}.",
            "Export it as another family.",
        )
    return theirs


def values_out(family: Family, config: ModelConfig, names: Collection[str] = ()) -> dict[str, Any]:
    """Values of the config.json of a model.

    Args:
        names: of its parameters; they say whether it has a head.

    Raises:
        UserError: a shape that the family cannot be, so that it would read another out of the values.
    """
    values = family.config_out(config)
    head = _with_head(family, names)
    if head:
        values |= {"architectures": [head.theirs]}
    try:
        wanted, read = _shape(config), _shape(family.config_in(values))
    except UserError as error:
        message = f"A model of the family {family.name!r} cannot have this shape. {error.message}"
        raise UserError(message, f"{error.hint} Else export it as another family.".strip()) from None
    for name, value in wanted.items():
        if value != read[name]:
            raise UserError(
                f"A model of the family {family.name!r} cannot have {name} {value}; it would be {read[name]}.",
                "Export it as another family.",
            )
    return values


def _with_head(family: Family, names: Collection[str]) -> WithHead | None:
    """The first of the family's heads that a model with parameters of these names has."""
    for head in family.heads:
        if any(name.startswith(f"heads.{head.head}.") for name in names):
            return head
    return None


def _shape(config: ModelConfig) -> dict[str, Any]:
    """Every value of the shape by its full name; windows layer by layer, however they are repeated."""
    values: dict[str, Any] = {}
    for name, value in config.model_dump(exclude={"special_token_ids"}).items():
        values |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    windows = config.attention.sliding_windows
    layers = max(config.num_hidden_layers, config.num_decoder_layers)
    return values | {"attention.sliding_windows": tuple(windows[i % len(windows)] for i in range(layers))}


def _ours(one: Map, tensor: Tensor) -> Tensor:
    """A tensor of theirs as our parameters lie in it."""
    if one.lifted and tensor.ndim > 1 and len(tensor) == 1:
        tensor = tensor[0]
    return tensor.T if one.transposed else tensor


def _check_copy(family: Family, name: str, copy: Tensor, weights: Mapping[str, Tensor]) -> None:
    original = weights.get(family.copies[name])
    if original is None or original.is_meta:  # names and shapes alone are being read
        return
    if not torch.equal(original, copy):
        raise UserError(
            f"The tensor {name} is not the table that the configuration says it shares.",
            "A model with one table for its encoder, its decoder and its head can be read.",
        )


def _whole_name(family: Family, name: str, every: Mapping[str, Tensor]) -> str:
    """The name as it is written today, with the prefix that a bare model leaves out."""
    for old, today in OLD_ENDINGS.items():
        name = name.removesuffix(old) + today if name.endswith(old) else name
    bare = bool(family.prefix) and not any(other.startswith(family.prefix) for other in every)
    return family.prefix + name if bare else name
