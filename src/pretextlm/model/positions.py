"""Where a token stands, told to the model by a table that is added or by a bias of the scores.

Positions count from each document's start, so a document is read alike wherever it is packed. Rotary positions are in
rotary.py. Axis letters: B rows, T query positions, S key positions, H heads, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pretextlm.model.config import PositionConfig

BIASED = ("relative", "alibi", "disentangled")
"""Kinds of positions that are a bias of the scores."""


class Sinusoids(nn.Module):
    """Sines and cosines of falling frequency (Vaswani et al. 2017), first all sines, then all cosines; not trained."""

    def __init__(self, config: PositionConfig, size: int) -> None:
        super().__init__()
        self.size, self.offset = size, config.offset

    def forward(self, positions_BT: Tensor) -> Tensor:
        half = self.size // 2
        exponents = torch.arange(half, device=positions_BT.device, dtype=torch.float32) / half
        phase = (positions_BT + self.offset)[..., None].float() * 10_000.0**-exponents
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class RelativeBias(nn.Module):
    """T5's bias of each head for each bucket of distance (Raffel et al. 2020), shared by a stack's layers.

    Half of the buckets stand for one distance each, the others widen logarithmically up to max_distance. Without
    `both_sides`, later keys count as distance 0.
    """

    def __init__(self, config: PositionConfig, heads: int, both_sides: bool) -> None:
        super().__init__()
        self.buckets, self.max_distance, self.both_sides = config.buckets, config.max_distance, both_sides
        self.weight = nn.Parameter(torch.zeros(config.buckets, heads))

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor) -> Tensor:
        """(B, H, T, S) in fp32."""
        distance_BTS = key_positions_BS[:, None, :] - query_positions_BT[:, :, None]
        return self.weight[self.bucket(distance_BTS)].permute(0, 3, 1, 2)

    def bucket(self, distance: Tensor) -> Tensor:
        """Number of the bucket of each distance key - query."""
        buckets = self.buckets
        found = torch.zeros_like(distance, dtype=torch.int64)
        if self.both_sides:
            buckets //= 2
            found = (distance > 0).long() * buckets
            distance = distance.abs()
        else:
            distance = (-distance).clamp(min=0)
        exact = buckets // 2
        growth = (distance.float().clamp(min=1) / exact).log() / math.log(self.max_distance / exact) * (buckets - exact)
        far = (exact + growth.long()).clamp(max=buckets - 1)
        return found + torch.where(distance < exact, distance.long(), far)


class Alibi(nn.Module):
    """A penalty that grows with distance, steeper for some heads than for others (Press et al. 2022)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor) -> Tensor:
        """(B, H, T, S) in fp32."""
        distance_BTS = (key_positions_BS[:, None, :] - query_positions_BT[:, :, None]).abs().float()
        slopes_H = torch.tensor(alibi_slopes(self.heads), device=distance_BTS.device)
        return -distance_BTS[:, None] * slopes_H[None, :, None, None]


def alibi_slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), … for n heads; for other numbers than powers of two, every other slope of twice as many."""
    whole = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8.0 * (i + 1) / whole) for i in range(whole)]
    further = [2.0 ** (-4.0 * (i + 1) / whole) for i in range(0, 2 * (heads - whole), 2)]
    return slopes + further
