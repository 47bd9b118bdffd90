"""Attention under a bias: by torch's fused kernel, or written out as plain matrix products.

The products are for what the kernel cannot compute, scores that are bounded, and what it computes slowly, short rows.

Axis letters: B rows (or blocks), T query positions, S key positions, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def attend_products(
    q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, bias: Tensor | None, scale: float, softcap: float = 0.0
) -> Tensor:
    """softmax(scale · q·k + bias) v, (B, T, H, E).

    Args:
        bias: broadcast to (B, H, T, S), 0 or -inf; None for none.
        softcap: scores are bounded to ± that by tanh before the bias is added; 0: not bounded.
    """
    groups = q_BTHE.size(2) // k_BSKE.size(2)
    if groups > 1:
        k_BSKE, v_BSKE = (x.repeat_interleave(groups, dim=2) for x in (k_BSKE, v_BSKE))
    scores_BHTS = torch.matmul(q_BTHE.transpose(1, 2) * scale, k_BSKE.permute(0, 2, 3, 1))
    scores_BHTS = capped(scores_BHTS, softcap)
    if bias is not None:
        scores_BHTS = scores_BHTS + bias
    at_least = torch.promote_types(scores_BHTS.dtype, torch.float32)
    weights_BHTS = scores_BHTS.softmax(dim=-1, dtype=at_least).to(v_BSKE.dtype)
    return torch.matmul(weights_BHTS, v_BSKE.transpose(1, 2)).transpose(1, 2)


def attend_blocks(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, softcap: float) -> Tensor:
    """The same, by the fused kernel where scores are not bounded."""
    if softcap:
        return attend_products(q, k, v, bias, scale, softcap)
    grouped = q.size(2) != k.size(2)
    out = scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def capped(scores: Tensor, softcap: float) -> Tensor:
    """Scores bounded to ±softcap by tanh; as they are when it is 0."""
    return (scores / softcap).tanh() * softcap if softcap else scores
