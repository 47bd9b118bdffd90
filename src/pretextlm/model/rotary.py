"""Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864), in the half-split form of GPT-NeoX and LLaMA.

Positions count from each document's start, so a document gets the same angles wherever it is packed.
Axis letters: B rows, T positions, H heads, E width of a head, R width that is turned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pretextlm.model.config import ModelConfig, RotaryScaling

UNSCALED = RotaryScaling()


class Angles(NamedTuple):
    """cos and sin, each (B or 1, T, 1, R/2); `local` are those of layers with a window, where these have their own."""

    cos: Tensor
    sin: Tensor
    local: Angles | None = None


def angles_of(config: ModelConfig, positions_BT: Tensor, dtype: torch.dtype) -> Angles | None:
    """What the queries and keys at these positions are turned by; None for a model of other positions."""
    parts = config.positions
    if parts.kind != "rotary":
        return None
    width = int(config.head_dim * parts.fraction)
    usual = angles(positions_BT, width, parts.theta, dtype, parts.scaling)
    if not parts.local_theta:
        return usual
    return usual._replace(local=angles(positions_BT, width, parts.local_theta, dtype))


def angles(
    positions_BT: Tensor, width: int, theta: float, dtype: torch.dtype, scaling: RotaryScaling = UNSCALED
) -> Angles:
    """Angles position · theta^(-2i/R), computed in fp32 and rounded once."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions_BT.device) / width
    phase = positions_BT[:, :, None, None].float() * scaled(theta**-exponents, scaling)
    return Angles(phase.cos().to(dtype), phase.sin().to(dtype))


def scaled(frequencies_R: Tensor, scaling: RotaryScaling) -> Tensor:
    """Frequencies for texts longer than those that the model was first trained on."""
    if scaling.kind == "none":
        return frequencies_R
    if scaling.kind == "linear":
        return frequencies_R / scaling.factor
    turns_R = frequencies_R * scaling.original_positions / (2 * math.pi)
    kept_R = ((turns_R - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return frequencies_R * (kept_R + (1 - kept_R) / scaling.factor)


def rotate(x_BTHE: Tensor, at: Angles) -> Tensor:
    """Turn each pair (x_i, x_{i+R/2}) by its angle; lengths are kept, and q·k depends on the distance alone."""
    width = 2 * at.cos.size(-1)
    if width < x_BTHE.size(-1):
        return torch.cat([rotate(x_BTHE[..., :width], at), x_BTHE[..., width:]], dim=-1)
    first, second = x_BTHE.chunk(2, dim=-1)
    return torch.cat([first * at.cos - second * at.sin, second * at.cos + first * at.sin], dim=-1)
