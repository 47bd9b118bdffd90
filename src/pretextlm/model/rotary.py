"""Rotary position embeddings (Su et al. 2021, https://arxiv.org/abs/2104.09864), in the half-split form of GPT-NeoX and
LLaMA.

Each pair of columns (x_i, x_{i+R/2}) of a query or key at position p is rotated by the angle p · theta^(-2i/R). A
rotation by a and one by b have the inner product of a rotation by a - b, so q·k depends on the distance of the two
positions alone:

    R = 4, theta = 100, p = 3:  (x0, x2) turn by 3 · 1 = 3 rad, (x1, x3) by 3 · 100^(-1/2) = 0.3 rad

Positions count from each document's start, so a document gets the same angles wherever it is packed. Where a scaling
depends on the length of the text, that is the document's: transformers takes the longest row of the batch, or of
the batches before, so that there a document is rotated differently beside a longer one.

Axis letters: B rows, T positions, H heads, E head_dim, R columns that are rotated.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pretextlm.model.config import ModelConfig, RopeScaling

UNSCALED = RopeScaling()
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Types of scaling that depend on how long a document is."""


class RotaryAngles(NamedTuple):
    """Cosines and sines of a row.

    Attributes:
        cos: (B or 1, T, 1, R/2).
        sin: (B or 1, T, 1, R/2).
        local: Those of layers with a sliding window, where these have their own.
    """

    cos: Tensor
    sin: Tensor
    local: RotaryAngles | None = None


def rotary_angles(
    config: ModelConfig, positions_BT: Tensor, dtype: torch.dtype, segments_BT: Tensor | None = None
) -> RotaryAngles | None:
    """Compute the angles that a model rotates queries and keys by.

    Args:
        config: Shape of the model.
        positions_BT: Position of each token in its document.
        dtype: Type of the activations.
        segments_BT: Documents of each row, -1 for padding, where angles depend on how long a document is; None when
            each row is one document.

    Returns:
        The angles; None for a model without rotary positions.
    """
    positions = config.positions
    if positions.kind != "rotary":
        return None
    width = int(config.head_dim * positions.partial_rotary_factor)
    lengths_BT = None
    if positions.rope_scaling.rope_type in LENGTH_DEPENDENT:
        lengths_BT = document_lengths(positions_BT, segments_BT)
    angles = compute_angles(positions_BT, width, positions.rope_theta, dtype, positions.rope_scaling, lengths_BT)
    if not positions.local_rope_theta:
        return angles
    return angles._replace(local=compute_angles(positions_BT, width, positions.local_rope_theta, dtype))


def document_lengths(positions_BT: Tensor, segments_BT: Tensor | None) -> Tensor:
    """Compute the length of each token's document, one more than its last position.

    Positions 0 1 2 0 1 of segments 0 0 0 1 1 give 3 3 3 2 2: tokens are numbered by document (0 0 0 1 1), the maximum
    of the positions is taken per number, and every token reads its number's.

    Args:
        positions_BT: Position of each token in its document.
        segments_BT: Documents of each row, -1 for padding; None when each row is one document.

    Returns:
        (B, T) lengths; 1 for padding.
    """
    if segments_BT is None:
        return positions_BT.amax(dim=1, keepdim=True).expand_as(positions_BT) + 1
    positions_BT = torch.where(segments_BT < 0, 0, positions_BT)
    begins_BT = torch.zeros_like(segments_BT, dtype=torch.int64)
    begins_BT[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    number_BT = begins_BT.cumsum(dim=1)
    last_BT = torch.zeros_like(positions_BT).scatter_reduce(1, number_BT, positions_BT, "amax")
    return last_BT.gather(1, number_BT) + 1


def compute_angles(
    positions_BT: Tensor,
    width: int,
    theta: float,
    dtype: torch.dtype,
    scaling: RopeScaling = UNSCALED,
    lengths_BT: Tensor | None = None,
) -> RotaryAngles:
    """Compute the angles position · theta^(-2i/R), in fp32 and rounded once.

    Args:
        positions_BT: Position of each token in its document.
        width: R.
        theta: Base of the frequencies.
        dtype: Type of the result.
        scaling: Changes the frequencies for longer texts.
        lengths_BT: Lengths of the documents, under a scaling that depends on them.
    """
    if scaling.rope_type in LENGTH_DEPENDENT:
        assert lengths_BT is not None, "these angles depend on the documents' lengths"
        by_length = dynamic_frequencies if scaling.rope_type == "dynamic" else longrope_frequencies
        frequencies = by_length(_exponents(width, positions_BT.device), theta, scaling, lengths_BT)[:, :, None]
    else:
        frequencies = fixed_frequencies(width, theta, scaling, positions_BT.device)
    phase = positions_BT[:, :, None, None].float() * frequencies
    cos, sin, factor = phase.cos(), phase.sin(), attention_factor(scaling)
    if factor != 1:
        cos, sin = cos * factor, sin * factor
    return RotaryAngles(cos.to(dtype), sin.to(dtype))


def _exponents(width: int, device: torch.device | None) -> Tensor:
    """(R/2,) 2i/R."""
    return torch.arange(0, width, 2, dtype=torch.float32, device=device) / width


def fixed_frequencies(width: int, theta: float, scaling: RopeScaling, device: torch.device | None = None) -> Tensor:
    """Compute the frequencies under a scaling that does not depend on how long a document is.

    Args:
        width: R.
        theta: Base of the frequencies.
        scaling: Changes them for longer texts.
        device: Where they are needed.

    Returns:
        (R/2,) frequencies in fp32.
    """
    exponents_R = _exponents(width, device)
    if scaling.rope_type == "yarn":
        return yarn_frequencies(exponents_R, theta, scaling)
    return scaled_frequencies(theta**-exponents_R, scaling)


def scaled_frequencies(frequencies_R: Tensor, scaling: RopeScaling) -> Tensor:
    """Divide frequencies by the factor, all of them ("linear") or the low ones ("llama3").

    A frequency f makes f · L / 2π turns within the original L positions. With "llama3", those of at least
    `high_freq_factor` turns are kept, those of at most `low_freq_factor` are divided by `factor`, and between the two
    the divisor is interpolated.

    Returns:
        (R/2,) frequencies.
    """
    if scaling.rope_type == "default":
        return frequencies_R
    if scaling.rope_type == "linear":
        return frequencies_R / scaling.factor
    turns_R = frequencies_R * scaling.original_max_position_embeddings / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept_R = ((turns_R - low) / (high - low)).clamp(0, 1)
    return frequencies_R * (kept_R + (1 - kept_R) / scaling.factor)


def yarn_frequencies(exponents_R: Tensor, theta: float, scaling: RopeScaling) -> Tensor:
    """Divide the frequencies of few turns and keep the others (YaRN).

    The i-th of n frequencies makes theta^(-i/n) · L / 2π turns within the original L positions, so the one with t turns
    is number n · log(L / 2πt) / log(theta). Between the numbers of `high_freq_factor` and `low_freq_factor` turns the
    divisor fades from 1 to `factor` linearly in i.

    Returns:
        (R/2,) frequencies.
    """
    pairs = len(exponents_R)

    def number_of(turns: float) -> float:
        length = scaling.original_max_position_embeddings
        return pairs * math.log(length / (turns * 2 * math.pi)) / math.log(theta)

    first, last = number_of(scaling.high_freq_factor), number_of(scaling.low_freq_factor)
    if scaling.truncate:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    width = (last - first) or 0.001
    divided_R = ((torch.arange(pairs, device=exponents_R.device) - first) / width).clamp(0, 1)
    return theta**-exponents_R * (1 - divided_R + divided_R / scaling.factor)


def longrope_frequencies(exponents_R: Tensor, theta: float, scaling: RopeScaling, lengths_BT: Tensor) -> Tensor:
    """Divide each frequency by its own factor, which is another one in long documents (LongRoPE).

    Returns:
        (B, T, R/2) frequencies.
    """
    short_R, long_R = (exponents_R.new_tensor(x) for x in (scaling.short_factor, scaling.long_factor))
    is_long_BT1 = (lengths_BT > scaling.original_max_position_embeddings)[..., None]
    return theta**-exponents_R / torch.where(is_long_BT1, long_R, short_R)


def dynamic_frequencies(exponents_R: Tensor, theta: float, scaling: RopeScaling, lengths_BT: Tensor) -> Tensor:
    """Compute frequencies of a base that grows with the length of a document, once it is longer than the original.

    Returns:
        (B, T, R/2) frequencies.
    """
    longer_BT = (lengths_BT.float() / scaling.original_max_position_embeddings).clamp(min=1)
    growth_BT = scaling.factor * longer_BT - (scaling.factor - 1)
    pairs = len(exponents_R)
    base_BT = theta * growth_BT ** (pairs / (pairs - 1))
    return base_BT[..., None] ** -exponents_R


def attention_factor(scaling: RopeScaling) -> float:
    """Returns the factor of cosines and sines; scores are multiplied by its square, once by q's and once by k's."""
    if scaling.rope_type not in ("yarn", "longrope"):
        return 1.0
    if scaling.attention_factor or scaling.factor <= 1:
        return scaling.attention_factor or 1.0
    if scaling.rope_type == "yarn":
        return 0.1 * math.log(scaling.factor) + 1
    return math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_max_position_embeddings))


def apply_rotary(x_BTHE: Tensor, angles: RotaryAngles) -> Tensor:
    """Rotate each pair (x_i, x_{i+R/2}) by its angle; columns from R on stay as they are.

    Args:
        x_BTHE: Queries or keys.
        angles: Cosines and sines of their positions.

    Returns:
        (B, T, H, E).
    """
    width = 2 * angles.cos.size(-1)
    if width < x_BTHE.size(-1):
        return torch.cat([apply_rotary(x_BTHE[..., :width], angles), x_BTHE[..., width:]], dim=-1)
    first, second = x_BTHE.chunk(2, dim=-1)
    return torch.cat([first * angles.cos - second * angles.sin, second * angles.cos + first * angles.sin], dim=-1)
