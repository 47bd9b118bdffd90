"""Disentangled attention (He et al. 2021, https://arxiv.org/abs/2006.03654): contents and positions meet separately.

The score of a query t and a key s has three terms (the paper's eq. 4, without position to position):

    content to content     Qc(t) · Kc(s)
    content to position    Qc(t) · Kr(δ(t, s))         the query's content with the key's relative position
    position to content    Kc(s) · Qr(δ(t, s))         the key's content with the query's relative position

δ(t, s) is the bucket of the distance t - s, a row of an embedding of 2·span rows that all layers share; Kr and Qr are
that embedding under the layer's own key and query projections. Far distances share logarithmic buckets.

Axis letters: B rows, T query positions, S key positions, R rows of the embedding, H heads, E head_dim, D hidden_size.
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
class RelativePositions:
    """The relative positions of a row, shared by all layers of a stack.

    Attributes:
        embeddings_RD: Normalized embedding of each bucket.
        index_BTS: Bucket of each query and key.
    """

    embeddings_RD: Tensor
    index_BTS: Tensor


class RelativeEmbedding(nn.Module):
    """The embedding of relative positions, normalized before each use."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.span, self.max_distance = config.positions.num_buckets, config.positions.max_distance
        self.weight = nn.Parameter(torch.zeros(2 * self.span, config.hidden_size))
        self.norm = Norm(config.norm, config.hidden_size)

    def forward(self, query_positions_BT: Tensor, key_positions_BS: Tensor, dtype: torch.dtype) -> RelativePositions:
        """Look up the relative positions of queries and keys.

        Args:
            query_positions_BT: Position of each query in its document.
            key_positions_BS: Position of each key.
            dtype: Type of the activations.
        """
        distance_BTS = query_positions_BT[:, :, None] - key_positions_BS[:, None, :]
        index_BTS = (self.bucket(distance_BTS) + self.span).clamp(0, 2 * self.span - 1)
        return RelativePositions(self.norm(self.weight.to(dtype)), index_BTS)

    def bucket(self, distance: Tensor) -> Tensor:
        """Compute the signed bucket of each distance query - key.

        Up to near = span / 2 a distance is its own bucket; from there on buckets widen logarithmically. With a span of
        8 and a max_distance of 32: distances 0 … 4 → 0 … 4, 5 … 7 → 5, 8 … 15 → 6, 16 … 31 → 7; -6 → -5. Farther ones
        get larger numbers, which `forward` clamps to the first or the last row.
        """
        near = self.span // 2
        size = distance.abs().clamp(min=1).float()
        growth = (size / near).log() / math.log((self.max_distance - 1) / near) * (near - 1)
        far = (growth.ceil() + near).long() * distance.sign()
        return torch.where(distance.abs() <= near, distance.long(), far)


def disentangled_bias(
    q_BTHE: Tensor,
    k_BSHE: Tensor,
    queries: Callable[[Tensor], Tensor],
    keys: Callable[[Tensor], Tensor],
    relative: RelativePositions,
) -> Tensor:
    """Compute content-to-position plus position-to-content scores.

    Both multiply by the R rows of the embedding first, (B, H, T, R), and then pick for each pair the column of its
    bucket: O(T·R·E) instead of O(T·S·E) products with a gathered embedding.

    Args:
        q_BTHE: Queries of the contents.
        k_BSHE: Keys of the contents.
        queries: The layer's query projection, (1, R, D) → (1, R, H, E); the same that contents go through.
        keys: The layer's key projection likewise.
        relative: Relative positions of the row.

    Returns:
        (B, H, T, S) scores, not scaled.
    """
    embeddings_1RD = relative.embeddings_RD[None]
    heads = q_BTHE.size(2)
    index = relative.index_BTS[:, None].expand(q_BTHE.size(0), heads, -1, -1)
    c2p_BHTS = torch.einsum("bthe,rhe->bhtr", q_BTHE, keys(embeddings_1RD)[0]).gather(3, index)
    # The key's row holds its products with every bucket, so the gather runs over (S, T) and is transposed back.
    p2c_BHST = torch.einsum("bshe,rhe->bhsr", k_BSHE, queries(embeddings_1RD)[0]).gather(3, index.transpose(2, 3))
    return c2p_BHTS + p2c_BHST.transpose(2, 3)
