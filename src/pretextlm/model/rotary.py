"""Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864), in the half-split form of GPT-NeoX and LLaMA.

Positions count from each document's start, so a document gets the same angles wherever it is packed.
Axis letters: B rows, T positions, H heads, E width of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Angles(NamedTuple):
    """cos and sin, each (B or 1, T, 1, E/2)."""

    cos: Tensor
    sin: Tensor


def angles(positions_BT: Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> Angles:
    """Angles position · theta^(-2i/E), computed in fp32 and rounded once."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions_BT.device) / head_dim
    phase = positions_BT[:, :, None, None].float() * theta**-exponents
    return Angles(phase.cos().to(dtype), phase.sin().to(dtype))


def rotate(x_BTHE: Tensor, at: Angles) -> Tensor:
    """Turn each pair (x_i, x_{i+E/2}) by its angle; lengths are kept, and q·k depends on the distance alone."""
    first, second = x_BTHE.chunk(2, dim=-1)
    return torch.cat([first * at.cos - second * at.sin, second * at.cos + first * at.sin], dim=-1)
