"""Cost of a model before it is trained: parameters by component, memory, FLOPs. No weights are allocated."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.flops import Flops, count
from pretextlm.model.parameter_count import Component, components, group_totals, total
from pretextlm.model.presets.preset import Preset
from pretextlm.model.transformer import Heads, meta_model
from pretextlm.training.memory_estimate import FORMULA, estimate_memory

Labels = dict[Literal["encoder", "decoder", "encoder_decoder"], float]
LABELLED: Labels = {"encoder": 0.15, "decoder": 1.0, "encoder_decoder": 1.0}
"""Share of the (decoder's) tokens that have a label under masked, causal and span-corruption training."""
TARGET_SHARE = 4
"""The target row of an encoder-decoder is assumed to have the length of the input row divided by this."""
DEFAULT_LENGTH = 512


def model_cost(
    config: ModelConfig,
    *,
    heads: Heads | None = None,
    rows: int = 8,
    length: int = 0,
    optimizer: Literal["adamw", "muon"] = "adamw",
    dtype: Literal["fp32", "bf16"] = "bf16",
    preset: Preset | None = None,
) -> dict[str, Any]:
    """Computes the cost of a model.

    Args:
        config: shape of the model.
        heads: modules that its objective trains along with it.
        rows: of a step's batch on one device.
        length: tokens of a row; 0: 512, or the size of the model's position table if that is less.
        optimizer: determines the optimizer's state.
        dtype: of the activations.
        preset: whose published parameter count is explained; its shape must be that of `config`.

    Returns:
        Plain values: total, components, groups, published, memory (bytes of a training step), flops_per_token.
    """
    model = meta_model(config, heads)
    parts = components(model)
    counted = total(model)
    length = length or min(DEFAULT_LENGTH, longest(config) or DEFAULT_LENGTH)
    target = max(1, length // TARGET_SHARE) if config.architecture == "encoder_decoder" else None
    memory = estimate_memory(model, optimizer, rows, length, dtype, target)
    labels = round(LABELLED[config.architecture] * (target or length))
    flops = count(config, 1, length, labels, config.architecture == "decoder", target)
    return {
        "total": counted,
        "components": [_plain(part) for part in parts],
        "groups": group_totals(parts),
        "published": published(preset, parts) if preset else None,
        "memory": {
            **asdict(memory),
            "total": memory.total,
            "settings": {
                "rows": rows,
                "length": length,
                "target_length": target,
                "optimizer": optimizer,
                "dtype": dtype,
            },
            "activations_estimated_as": FORMULA,
        },
        "flops_per_token": {**_per_token(flops, length + (target or 0)), "length": length, "labels": labels},
    }


def longest(config: ModelConfig) -> int:
    """Returns the number of tokens that the model's position table covers; 0 if it has none."""
    places = config.positions
    return places.max_position_embeddings - places.offset if places.kind in ("learned", "sinusoidal") else 0


def published(preset: Preset, parts: list[Component]) -> dict[str, Any]:
    """Compares our parameter count with the published one.

    Args:
        preset: the published figure and the groups of parameters that it leaves out or adds.
        parts: our components.

    Returns:
        Plain values: the figure, the groups left out and added, and our count by the same rules.
    """
    sums = group_totals(parts)
    without = {group: sums[group] for group in preset.leaves_out}
    as_published = sum(sums.values()) - sum(without.values()) + sum(preset.adds.values())
    return {
        "figure": preset.published,
        "paper": preset.paper,
        "leaves_out": without,
        "adds": dict(preset.adds),
        "as_published": as_published,
        "agrees": preset.agrees(as_published),
        "note": preset.note,
    }


def _plain(part: Component) -> dict[str, Any]:
    return {
        "group": part.group,
        "name": part.name,
        "shapes": part.formula,
        "each": part.each,
        "layers": part.layers,
        "parameters": part.parameters,
        "note": part.note,
    }


def _per_token(flops: Flops, tokens: int) -> dict[str, float]:
    return {**{name: value / tokens for name, value in asdict(flops).items()}, "total": flops.total / tokens}
