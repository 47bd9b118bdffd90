"""A published family of models: a reversible map of its configuration and of the names of its weights.

    Hugging Face                                            ours
    bert.encoder.layer.3.attention.self.query.weight   ↔    encoder.3.self_attn.q_proj.weight
    transformer.h.3.attn.c_attn.weight (D, 3 D)        ↔    decoder.3.self_attn.{q,k,v}_proj.weight, concatenated

Weights are only renamed, transposed, reordered, split or concatenated, never changed: import and export give the same
bytes.
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
from pretextlm.model.families.shared.tensor_maps import TensorMap

OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
"""Names in checkpoints that were converted long ago."""


@dataclass(frozen=True)
class HeadClass:
    """The Hugging Face class of a model with one of our heads.

    Attributes:
        head: Name among the heads of a model.
        theirs: Name of the class that has this head.
        without: Patterns of our parameters that this class does not have.
        rows: Parameters of ours whose number of rows this class fixes.
    """

    head: str
    theirs: str
    without: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)


class Family(ABC):
    """A family of models. One object serves all of its sizes.

    Attributes:
        name: Hugging Face's model_type.
        classes: Its model classes and our architecture of each; the first is the class that is exported.
        prefix: Prefix of tensor names that a bare model (without a head) leaves out.
        ignored: Patterns of tensors that hold no weights.
        copies: Tensors that models with tied embeddings store twice, by the one of ours that they must equal.
        decoder_start: Special token that the decoder over an encoder starts with in published models.
        heads: Heads of ours that a Hugging Face class has too. Import into a model without such a head ignores its
            tensors.
        task_classes: Classes of fine-tuned models whose heads compute the same as ours.
    """

    name: ClassVar[str]
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]]
    prefix: ClassVar[str] = ""
    ignored: ClassVar[tuple[str, ...]] = ()
    copies: ClassVar[Mapping[str, str]] = MappingProxyType({})
    decoder_start: ClassVar[Literal["pad", "eos"]] = "pad"
    heads: ClassVar[tuple[HeadClass, ...]] = ()
    task_classes: ClassVar[Mapping[Kind, TaskClass]] = MappingProxyType({})

    @abstractmethod
    def config_from_hf(self, values: Mapping[str, Any]) -> ModelConfig:
        """Convert a config.json.

        Args:
            values: Values of the config.json.

        Raises:
            UserError: A model that our transformer cannot represent.
        """

    def adjust_config(self, config: ModelConfig, theirs: Collection[str]) -> ModelConfig:
        """Adjust the shape to a checkpoint, where config.json alone does not determine it.

        Args:
            config: The shape by the config.json.
            theirs: Names of all tensors of the checkpoint.
        """
        return config

    @abstractmethod
    def config_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        """Convert a shape to the values of a config.json.

        Raises:
            UserError: A shape that the family does not have.
        """

    def task_class(self, kind: Kind, form: str) -> TaskClass | None:
        """Returns the class of fine-tuned models of a kind; None if the family has none.

        Args:
            kind: Output of the head.
            form: Activation of the head's dense layer, "plain" for none; a published class has one form alone.
        """
        return self.task_classes.get(kind)

    @abstractmethod
    def maps(self, config: ModelConfig) -> list[TensorMap]:
        """Returns the map of every tensor of a model of this shape."""


@dataclass(frozen=True)
class Imported:
    """Imported weights.

    Attributes:
        weights: Our name → tensor.
        missing: Our names that the checkpoint had no tensor for.
        left: Names of the checkpoint that were not imported.
    """

    weights: dict[str, Tensor]
    missing: list[str]
    left: list[str]


def weights_from_hf(
    family: Family,
    config: ModelConfig,
    theirs: Mapping[str, Tensor],
    ours: Mapping[str, torch.Size],
    more: Iterable[TensorMap] = (),
) -> Imported:
    """Convert the tensors of a checkpoint to our parameters.

    Args:
        family: Family of the model.
        config: Its shape.
        theirs: All tensors of the checkpoint.
        ours: Shapes of our model's parameters.
        more: Maps of further tensors, which not every such model has: the head of a task.

    Raises:
        UserError: A tensor of another shape than the configuration says.
    """
    rest = {_full_name(family, name, theirs): tensor for name, tensor in theirs.items()}
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
        original = family.copies[name]
        if original in weights:
            _check_copy(name, rest.pop(name), weights[original])
        elif original in ours and rest[name].shape == ours[original]:  # stored under this name alone
            weights[original] = rest.pop(name)
    left = [name for name in rest if not any(re.search(pattern, name) for pattern in family.ignored)]
    return Imported(weights, [name for name in ours if name not in weights], left)


def weights_to_hf(
    family: Family, config: ModelConfig, ours: Mapping[str, Tensor], more: Iterable[TensorMap] = ()
) -> dict[str, Tensor]:
    """Convert our parameters to the tensors of a checkpoint.

    Args:
        family: Family to export as.
        config: Shape of the model.
        ours: Our parameters.
        more: Maps of further tensors: the head of a task.

    Returns:
        Hugging Face's name → tensor.

    Raises:
        UserError: A parameter that the family does not have.
    """
    head = _with_head(family, ours)
    left, theirs = dict(ours), {}
    if head:
        for name, rows in head.rows.items():
            if len(ours[name]) != rows:
                raise UserError(
                    f"{head.theirs} has {rows} rows for {name}; this model has {len(ours[name])}.",
                    f"Export it without its head {head.head!r}.",
                )
        left = {n: t for n, t in ours.items() if not any(re.match(pattern, n) for pattern in head.without)}
    for pattern in (*more, *family.maps(config)):
        for one in pattern.expanded(config):
            if one.ours[0] not in left:
                continue
            tensor = torch.cat([left.pop(name) for name in one.ours]) if len(one.ours) > 1 else left.pop(one.ours[0])
            tensor = one.reordered(tensor[None] if one.unsqueezed else tensor)
            theirs[one.theirs] = (tensor.T if one.transposed else tensor).contiguous()
    if left:
        raise UserError(
            f"A model of the family {family.name!r} has no place for {next(iter(left))}.",
            "Export it as another family.",
        )
    return theirs


def hf_config_values(family: Family, config: ModelConfig, names: Collection[str] = ()) -> dict[str, Any]:
    """Compute the values of a model's config.json, and check that they give the same shape when they are read.

    Args:
        family: Family to export as.
        config: Shape of the model.
        names: Names of its parameters, which tell whether it has a head.

    Raises:
        UserError: A shape that the family does not have, so that another one would be read from the values.
    """
    values = family.config_to_hf(config)
    head = _with_head(family, names)
    if head:
        values |= {"architectures": [head.theirs]}
    try:
        expected, read = _shape(config), _shape(family.config_from_hf(values))
    except UserError as error:
        message = f"A model of the family {family.name!r} cannot have this shape. {error.message}"
        raise UserError(message, f"{error.hint} Else export it as another family.".strip()) from None
    for name, value in expected.items():
        if value != read[name]:
            raise UserError(
                f"A model of the family {family.name!r} cannot have {name} {value}; it would be {read[name]}.",
                "Export it as another family.",
            )
    return values


def _with_head(family: Family, names: Collection[str]) -> HeadClass | None:
    """Returns the first of the family's heads that a model with these parameters has."""
    for head in family.heads:
        if any(name.startswith(f"heads.{head.head}.") for name in names):
            return head
    return None


def _shape(config: ModelConfig) -> dict[str, Any]:
    """Returns every value of the shape by its dotted name; windows layer by layer, however they are repeated."""
    values: dict[str, Any] = {}
    for name, value in config.model_dump(exclude={"special_token_ids"}).items():
        values |= {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, dict) else {name: value}
    windows = config.attention.sliding_windows
    layers = max(config.num_hidden_layers, config.num_decoder_layers)
    return values | {"attention.sliding_windows": tuple(windows[i % len(windows)] for i in range(layers))}


def _ours(one: TensorMap, tensor: Tensor) -> Tensor:
    """Returns a tensor of the checkpoint in the layout of our parameters."""
    if one.unsqueezed and tensor.ndim > 1 and len(tensor) == 1:
        tensor = tensor[0]
    return one.reordered(tensor.T if one.transposed else tensor)


def _check_copy(name: str, copy: Tensor, original: Tensor) -> None:
    if original.is_meta:  # names and shapes alone are being read
        return
    if not torch.equal(original, copy):
        raise UserError(
            f"The tensor {name} differs from the one that it is tied to by config.json.",
            "If it is a head of its own, give tie_word_embeddings = false in config.json; a model whose embeddings and "
            "head are one table can be read.",
        )


def _full_name(family: Family, name: str, every: Mapping[str, Tensor]) -> str:
    """Returns the current name of a tensor, with the prefix that a bare model leaves out."""
    for old, today in OLD_ENDINGS.items():
        name = name.removesuffix(old) + today if name.endswith(old) else name
    bare = bool(family.prefix) and not any(other.startswith(family.prefix) for other in every)
    return family.prefix + name if bare else name
