"""Disentangled attention (He et al. 2021, https://arxiv.org/abs/2006.03654): content and place are compared apart.

The score of a query t and a key s is that of their contents, plus the query's content with the key's relative place,
plus the key's content with the query's relative place. Places are a table of distances, turned into keys and queries by
each layer's own projections; far distances share logarithmic buckets (DeBERTa-v2 and v3).

Axis letters: B rows, T query positions, S key positions, R rows of the table, H heads, E width of a head, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pretextlm.model.config import ModelConfig
from pretextlm.model.norm import Norm


@dataclass(frozen=True)
class Places:
    """What all layers of a stack share.

    Attributes:
        table_RD: states of the relative places.
        index_BTS: row of the table for each query and key.
    """

    table_RD: Tensor
    index_BTS: Tensor


class RelativePlaces(nn.Module):
    """The table of relative places, normalised before each use."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.span, self.max_distance = config.positions.buckets, config.positions.max_distance
        self.weight = nn.Parameter(torch.zeros(2 * self.span, config.hidden_size))
        self.norm = Norm(config.norm, config.hidden_size)

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor, dtype: torch.dtype) -> Places:
        distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
        index_BTS = (self.bucket(distance_BTS) + self.span).clamp(0, 2 * self.span - 1)
        return Places(self.norm(self.weight.to(dtype)), index_BTS)

    def bucket(self, distance: Tensor) -> Tensor:
        """Signed bucket of each distance query - key: near ones are their own, far ones grow logarithmically."""
        near = self.span // 2
        size = distance.abs().clamp(min=1).float()
        growth = (size / near).log() / math.log((self.max_distance - 1) / near) * (near - 1)
        far = (growth.ceil() + near).long() * distance.sign()
        return torch.where(distance.abs() <= near, distance.long(), far)


def place_scores(
    q_BTHE: Tensor,
    k_BSHE: Tensor,
    queries: Callable[[Tensor], Tensor],
    keys: Callable[[Tensor], Tensor],
    places: Places,
) -> Tensor:
    """(B, H, T, S) content to place plus place to content, not scaled.

    Args:
        queries, keys: a layer's projections (1, R, D) → (1, R, H, E), the same that its content goes through.
    """
    table_1RD = places.table_RD[None]
    heads = q_BTHE.size(2)
    index = places.index_BTS[:, None].expand(q_BTHE.size(0), heads, -1, -1)
    to_place = torch.einsum("bthe,rhe->bhtr", q_BTHE, keys(table_1RD)[0]).gather(3, index)
    from_place = torch.einsum("bshe,rhe->bhsr", k_BSHE, queries(table_1RD)[0]).gather(3, index.transpose(2, 3))
    return to_place + from_place.transpose(2, 3)
