"""Attention as plain matrix products: what the fused kernel cannot compute, or computes slowly on short rows.

Axis letters: B rows (or blocks), T query positions, S key positions, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    if softcap:
        scores_BHTS = (scores_BHTS / softcap).tanh() * softcap
    if bias is not None:
        scores_BHTS = scores_BHTS + bias
    at_least = torch.promote_types(scores_BHTS.dtype, torch.float32)
    weights_BHTS = scores_BHTS.softmax(dim=-1, dtype=at_least).to(v_BSKE.dtype)
    return torch.matmul(weights_BHTS, v_BSKE.transpose(1, 2)).transpose(1, 2)
