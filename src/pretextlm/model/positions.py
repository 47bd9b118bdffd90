"""Positions as an embedding that is added to the tokens', or as a bias that is added to the attention scores.

Positions count from each document's start, so a document is read alike wherever it is packed. Rotary positions are in
rotary.py. Axis letters: B rows, T query positions, S key positions, H heads, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretextlm.model.config import PositionConfig

BIAS_KINDS = ("relative", "alibi", "disentangled")
"""Kinds of positions that are a bias of the attention scores."""


class SinusoidalEmbedding(nn.Module):
    """Sines and cosines of falling frequency (Vaswani et al. 2017), first all sines, then all cosines; not trained."""

    def __init__(self, config: PositionConfig, size: int) -> None:
        super().__init__()
        self.size, self.offset = size, config.offset

    def forward(self, positions_BT: Tensor) -> Tensor:
        """Compute the embedding of each position.

        Returns:
            (B, T, D) in fp32.
        """
        half = self.size // 2
        exponents = torch.arange(half, device=positions_BT.device, dtype=torch.float32) / half
        phase = (positions_BT + self.offset)[..., None].float() * 10_000.0**-exponents
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class RelativePositionBias(nn.Module):
    """T5's learned bias of each head for each bucket of distance (Raffel et al. 2020), shared by a stack's layers.

    Args:
        config: Number of buckets and the largest distance.
        heads: H.
        bidirectional: Whether half of the buckets are for later keys; else later keys count as distance 0.
    """

    def __init__(self, config: PositionConfig, heads: int, bidirectional: bool) -> None:
        super().__init__()
        self.num_buckets, self.max_distance = config.num_buckets, config.max_distance
        self.bidirectional = bidirectional
        self.weight = nn.Parameter(torch.zeros(config.num_buckets, heads))

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor) -> Tensor:
        """Compute the bias of each pair.

        Returns:
            (B, H, T, S) in fp32.
        """
        distance_BTS = key_positions_BS[:, None, :] - query_positions_BT[:, :, None]
        return self.weight[self.bucket(distance_BTS)].permute(0, 3, 1, 2)

    def bucket(self, distance: Tensor) -> Tensor:
        """Compute the bucket of each distance key - query.

        In one direction, the first half of the buckets hold one distance each, the others widen logarithmically up to
        max_distance. With 32 causal buckets and a max_distance of 128: distances 0 … 15 → 0 … 15, 16 … 18 → 16,
        19 and 20 → 17, …, 113 and above → 31.
        """
        num_buckets = self.num_buckets
        found = torch.zeros_like(distance, dtype=torch.int64)
        if self.bidirectional:
            num_buckets //= 2
            found = (distance > 0).long() * num_buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = num_buckets // 2
        growth = (distance.float().clamp(min=1) / exact).log() / math.log(self.max_distance / exact)
        far = (exact + (growth * (num_buckets - exact)).long()).clamp(max=num_buckets - 1)
        return found + torch.where(distance < exact, distance.long(), far)


class AlibiBias(nn.Module):
    """A penalty that grows linearly with distance, steeper for some heads than for others (Press et al. 2022)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor) -> Tensor:
        """Compute the bias of each pair: -slope · |distance|.

        Returns:
            (B, H, T, S) in fp32.
        """
        distance_BTS = (key_positions_BS[:, None, :] - query_positions_BT[:, :, None]).abs().float()
        slopes_H = torch.tensor(alibi_slopes(self.heads), device=distance_BTS.device)
        return -distance_BTS[:, None] * slopes_H[None, :, None, None]


def alibi_slopes(heads: int) -> list[float]:
    """Returns the slope of each head.

    For n = 2^k heads these are 2^(-8/n), 2^(-16/n), …; for 8 heads 1/2, 1/4, … 1/256. For another number, those of the
    next lower power of two come first, then every other slope of twice as many heads: for 3 heads 2^-4, 2^-8, 2^-2.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    further = [2.0 ** (-4.0 * (i + 1) / power) for i in range(0, 2 * (heads - power), 2)]
    return slopes + further
