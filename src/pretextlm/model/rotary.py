"""Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864), in the half-split form of GPT-NeoX and LLaMA.

Positions count from each document's start, so a document gets the same angles wherever it is packed. Where a scaling
depends on the length of the text, that is the document's: transformers takes the longest row of the batch, and what
its last batches had, so that there a document is turned otherwise beside a longer one.
Axis letters: B rows, T positions, H heads, E width of a head, R width that is turned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pretextlm.model.config import ModelConfig, RotaryScaling

UNSCALED = RotaryScaling()
BY_LENGTH = ("dynamic", "longrope")
"""Kinds of scaling that depend on how long a document is."""


class Angles(NamedTuple):
    """cos and sin, each (B or 1, T, 1, R/2); `local` are those of layers with a window, where these have their own."""

    cos: Tensor
    sin: Tensor
    local: Angles | None = None


def angles_of(
    config: ModelConfig, positions_BT: Tensor, dtype: torch.dtype, segments_BT: Tensor | None = None
) -> Angles | None:
    """What the queries and keys at these positions are turned by; None for a model of other positions.

    Args:
        segments_BT: documents of each row, -1 for padding, where angles depend on how long a document is; None: each
            row is one.
    """
    parts = config.positions
    if parts.kind != "rotary":
        return None
    width = int(config.head_dim * parts.partial_rotary_factor)
    lengths_BT = None
    if parts.scaling.kind in BY_LENGTH:
        lengths_BT = document_lengths(positions_BT, segments_BT)
    usual = angles(positions_BT, width, parts.theta, dtype, parts.scaling, lengths_BT)
    if not parts.local_theta:
        return usual
    return usual._replace(local=angles(positions_BT, width, parts.local_theta, dtype))


def document_lengths(positions_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
    """(B, T) length of each token's document, one more than its last position; of padding 1."""
    if segments_BT is None:
        return positions_BT.amax(dim=1, keepdim=True).expand_as(positions_BT) + 1
    places_BT = torch.where(segments_BT < 0, 0, positions_BT)
    begins_BT = torch.zeros_like(segments_BT, dtype=torch.int64)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    nth_BT = begins_BT.cumsum(dim=1)
    return torch.zeros_like(places_BT).scatter_reduce(1, nth_BT, places_BT, "amax").gather(1, nth_BT) + 1


def angles(
    positions_BT: Tensor,
    width: int,
    theta: float,
    dtype: torch.dtype,
    scaling: RotaryScaling = UNSCALED,
    lengths_BT: Tensor | None = None,
) -> Angles:
    """Angles position · theta^(-2i/R), computed in fp32 and rounded once.

    Args:
        lengths_BT: of the documents, under a scaling that depends on them.
    """
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions_BT.device) / width
    if scaling.kind in BY_LENGTH:
        assert lengths_BT is not None, "these angles depend on the documents' lengths"
        of_length = dynamic if scaling.kind == "dynamic" else longrope
        frequencies = of_length(exponents, theta, scaling, lengths_BT)[:, :, None]
    elif scaling.kind == "yarn":
        frequencies = yarn(exponents, theta, scaling)
    else:
        frequencies = scaled(theta**-exponents, scaling)
    phase = positions_BT[:, :, None, None].float() * frequencies
    cos, sin, factor = phase.cos(), phase.sin(), attention_factor(scaling)
    if factor != 1:
        cos, sin = cos * factor, sin * factor
    return Angles(cos.to(dtype), sin.to(dtype))


def scaled(frequencies_R: Tensor, scaling: RotaryScaling) -> Tensor:
    """Frequencies divided all alike ("linear"), or by how many turns they make ("llama3")."""
    if scaling.kind == "none":
        return frequencies_R
    if scaling.kind == "linear":
        return frequencies_R / scaling.factor
    turns_R = frequencies_R * scaling.original_positions / (2 * math.pi)
    kept_R = ((turns_R - scaling.low) / (scaling.high - scaling.low)).clamp(0, 1)
    return frequencies_R * (kept_R + (1 - kept_R) / scaling.factor)


def yarn(exponents_R: Tensor, theta: float, scaling: RotaryScaling) -> Tensor:
    """Frequencies of few turns divided, the others kept; between the two it fades from frequency to frequency."""
    pairs = len(exponents_R)

    def nth(turns: float) -> float:
        """Which frequency, counted from the highest, makes so many turns within the original positions."""
        return pairs * math.log(scaling.original_positions / (turns * 2 * math.pi)) / math.log(theta)

    first, last = nth(scaling.high), nth(scaling.low)
    if scaling.whole_range:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = (last - first) or 0.001
    divided_R = ((torch.arange(pairs, device=exponents_R.device) - first) / width).clamp(0, 1)
    return theta**-exponents_R * (1 - divided_R + divided_R / scaling.factor)


def longrope(exponents_R: Tensor, theta: float, scaling: RotaryScaling, lengths_BT: Tensor) -> Tensor:
    """(B, T, R) each frequency divided by its own factor, which is another in long documents."""
    short_R, long_R = (exponents_R.new_tensor(x) for x in (scaling.short_factors, scaling.long_factors))
    is_long_BT1 = (lengths_BT > scaling.original_positions)[..., None]
    return theta**-exponents_R / torch.where(is_long_BT1, long_R, short_R)


def dynamic(exponents_R: Tensor, theta: float, scaling: RotaryScaling, lengths_BT: Tensor) -> Tensor:
    """(B, T, R) frequencies of a base that grows with the length of a document, from the original positions on."""
    longer_BT = (lengths_BT.float() / scaling.original_positions).clamp(min=1)
    growth_BT = scaling.factor * longer_BT - (scaling.factor - 1)
    pairs = len(exponents_R)
    base_BT = theta * growth_BT ** (pairs / (pairs - 1))
    return base_BT[..., None] ** -exponents_R


def attention_factor(scaling: RotaryScaling) -> float:
    """What cosines and sines are multiplied by, and so the scores by its square."""
    if scaling.kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor or scaling.factor <= 1:
        return scaling.attention_factor or 1.0
    if scaling.kind == "yarn":
        return 0.1 * math.log(scaling.factor) + 1
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_positions))


def rotate(x_BTHE: Tensor, at: Angles) -> Tensor:
    """Turn each pair (x_i, x_{i+R/2}) by its angle; lengths are kept, and q·k depends on the distance alone."""
    width = 2 * at.cos.size(-1)
    if width < x_BTHE.size(-1):
        return torch.cat([rotate(x_BTHE[..., :width], at), x_BTHE[..., width:]], dim=-1)
    first, second = x_BTHE.chunk(2, dim=-1)
    return torch.cat([first * at.cos - second * at.sin, second * at.cos + first * at.sin], dim=-1)
