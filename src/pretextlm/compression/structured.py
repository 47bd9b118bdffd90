"""Structured pruning: removing attention heads, feed-forward channels and layers, so that the matrices become smaller.

Every layer loses equally many units, so that one configuration still describes the model; each layer chooses by its own
scores (importance.py). The head dimension is unchanged.

* Heads that share keys and values are removed together: with K key-value heads, the unit is a group of H / K query
  heads and their key-value head. With a single key-value head (multi-query), the unit is a query head.
* A learned relative position bias per head (T5) is one table for all layers: there, the same heads are removed
  everywhere.

Letters: D hidden_size, F intermediate_size, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig

ATTENTION = re.compile(r"(encoder|decoder)\.\d+\.(self_attn|cross_attn)")
FEED_FORWARD = re.compile(r"(encoder|decoder)\.\d+\.mlp")
_LAYER = re.compile(r"(encoder|decoder)\.(\d+)\.(.+)")

Scores = Mapping[str, Tensor]
"""Name of an attention or feed-forward layer → importance of each of its units or channels."""


@dataclass(frozen=True)
class Heads:
    """The units in which heads are removed.

    Attributes:
        units: per attention.
        queries: query heads per unit.
        shared: all units share one key-value head, which is kept.
    """

    units: int
    queries: int
    shared: bool

    @classmethod
    def of(cls, config: ModelConfig) -> Heads:
        heads, key_values = config.num_attention_heads, config.num_key_value_heads
        if key_values == 1:
            return cls(heads, 1, heads > 1)
        return cls(key_values, heads // key_values, False)


def check_heads(config: ModelConfig) -> None:
    """Check that heads can be removed.

    Raises:
        UserError: the attention of this model does not allow it.
    """
    if config.positions.kind == "alibi":
        raise UserError(
            "The slopes of ALiBi positions depend on how many heads there are, so none can be taken away.",
            "Prune its channels or layers, or by --sparsity.",
        )


def count_to_remove(share: float, units: int, what: str) -> int:
    """Returns the number of units to remove.

    Raises:
        UserError: the share is out of range, or would remove none or all units.
    """
    if not 0 < share < 1:
        raise UserError(f"A share of {share:g} of the {what} is not between 0 and 1.", "For example 0.25.")
    count = round(share * units)
    if count == 0:
        raise UserError(f"A share of {share:g} of {units} {what} is less than one.", f"Give at least {1 / units:.3g}.")
    if count == units:
        raise UserError(
            f"A share of {share:g} would take all {units} {what} of a layer.",
            f"Give at most {(units - 1) / units:.3g}." if units > 1 else "There is only one: prune something else.",
        )
    return count


def kept_units(scores: Scores, count: int, config: ModelConfig) -> dict[str, Tensor]:
    """Returns the indices of the units of each attention that are kept, ascending, without the `count` least
    important.
    """
    if config.positions.kind == "relative":
        scores = _together(scores)
    return {name: _most_important(score, count) for name, score in scores.items() if ATTENTION.fullmatch(name)}


def kept_channels(scores: Scores, count: int) -> dict[str, Tensor]:
    """Returns the indices of the channels of each feed-forward layer that are kept, ascending."""
    return {name: _most_important(score, count) for name, score in scores.items() if FEED_FORWARD.fullmatch(name)}


def _most_important(scores: Tensor, count: int) -> Tensor:
    return scores.sort(descending=True, stable=True).indices[: len(scores) - count].sort().values


def _together(scores: Scores) -> dict[str, Tensor]:
    """Give the self-attentions of a stack one score: the sum of theirs, each normalized to length 1 (Molchanov et al.
    2017).
    """
    found = dict(scores)
    for stack in ("encoder", "decoder"):
        own = [name for name in scores if re.fullmatch(rf"{stack}\.\d+\.self_attn", name)]
        if own:
            total = torch.stack([scores[name] / scores[name].norm().clamp(min=1e-30) for name in own]).sum(0)
            found |= dict.fromkeys(own, total)
    return found


def cut_heads(
    weights: Mapping[str, Tensor], config: ModelConfig, kept: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], ModelConfig]:
    """Returns weights and configuration with only the kept units of each attention."""
    unit, width = Heads.of(config), config.head_dim
    found = dict(weights)
    for name, units in kept.items():
        queries = _places(units, unit.queries * width)
        keys = None if unit.shared else _places(units, width)
        for part in (f"{name}.", f"{name}.of_globals."):
            _cut(found, f"{part}q_proj", queries)
            for projection in ("k_proj", "v_proj"):
                if keys is not None:
                    _cut(found, f"{part}{projection}", keys)
        found[f"{name}.o_proj.weight"] = found[f"{name}.o_proj.weight"][:, queries].contiguous()
        table = f"{name.split('.')[0]}_bias.weight"
        if config.positions.kind == "relative" and name.endswith("0.self_attn"):
            found[table] = found[table][:, _places(units, unit.queries)].contiguous()
    left = len(next(iter(kept.values())))
    return found, _changed(
        config, num_attention_heads=left * unit.queries, num_key_value_heads=1 if unit.shared else left
    )


def cut_channels(
    weights: Mapping[str, Tensor], config: ModelConfig, kept: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], ModelConfig]:
    """Returns weights and configuration with only the kept channels of each feed-forward layer."""
    found = dict(weights)
    for name, channels in kept.items():
        _cut(found, f"{name}.up_proj", channels)
        _cut(found, f"{name}.gate_proj", channels)
        found[f"{name}.down_proj.weight"] = found[f"{name}.down_proj.weight"][:, channels].contiguous()
    return found, _changed(config, intermediate_size=len(next(iter(kept.values()))))


def keep_layers(
    weights: Mapping[str, Tensor], config: ModelConfig, layers: Sequence[int]
) -> tuple[dict[str, Tensor], ModelConfig]:
    """Returns weights and configuration with only these layers, renumbered from 0.

    Raises:
        UserError: a layer does not exist or is named twice, all layers are kept, or the layers are not one sequence.
    """
    wanted, there = sorted(set(layers)), config.num_hidden_layers
    if config.architecture == "encoder_decoder" or config.share_layers:
        kind = "of an encoder-decoder are two rows" if not config.share_layers else "of this model are all the same"
        raise UserError(f"The layers {kind}, so they cannot be chosen by number.", "Prune heads or channels.")
    if len(wanted) != len(layers) or not wanted or wanted[0] < 0 or wanted[-1] >= there:
        raise UserError(
            f"The layers of this model are 0 to {there - 1}, each to be named once; not {','.join(map(str, layers))}.",
            "Name those that stay, for example --layers 0,2,4.",
        )
    if len(wanted) == there:
        raise UserError(f"All {there} layers would stay.", "Name only those that are to stay.")
    if not config.norm.first_layer and wanted[0] != 0:
        raise UserError("The first layer of this model reads the embedding as it is and must stay.", "Keep layer 0.")
    number = {old: new for new, old in enumerate(wanted)}
    found = {}
    for name, weight in weights.items():
        parts = _LAYER.fullmatch(name)
        if parts is None:
            found[name] = weight
        elif int(parts[2]) in number:
            found[f"{parts[1]}.{number[int(parts[2])]}.{parts[3]}"] = weight
    windows = config.attention.sliding_windows
    own = tuple(windows[layer % len(windows)] for layer in wanted)
    attention = config.attention.model_dump() | {"sliding_windows": own if len(set(own)) > 1 else own[:1]}
    return found, _changed(config, num_hidden_layers=len(wanted), num_decoder_layers=0, attention=attention)


def _places(units: Tensor, width: int) -> Tensor:
    """Returns the row indices of the units, each `width` rows."""
    return (units[:, None] * width + torch.arange(width)).flatten()


def _cut(weights: dict[str, Tensor], name: str, rows: Tensor) -> None:
    """Keep these rows of a projection's weight and, if present, bias."""
    for part in (f"{name}.weight", f"{name}.bias"):
        if part in weights:
            weights[part] = weights[part][rows].contiguous()


def _changed(config: ModelConfig, **values: object) -> ModelConfig:
    changed: ModelConfig = ModelConfig.parse({**config.model_dump(), **values})
    return changed
