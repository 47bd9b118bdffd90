"""Attention under an additive mask: by torch's fused kernel, or as plain matrix products ("eager").

The eager form serves scores with a soft cap, which the kernel cannot compute, and short rows, where it is slow.

Axis letters: B rows (or blocks), T query positions, S key positions, H heads, K key-value heads, E head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pretextlm.model.layers import soft_cap


def attend_eager(
    q_BTHE: Tensor, k_BSKE: Tensor, v_BSKE: Tensor, bias: Tensor | None, scale: float, softcap: float = 0.0
) -> Tensor:
    """Compute softmax(scale · q·k + bias) v by matrix products.

    Args:
        q_BTHE: Queries.
        k_BSKE: Keys; with fewer heads than the queries, each serves several of them.
        v_BSKE: Values.
        bias: Broadcast to (B, H, T, S), 0 or -inf; None for none.
        scale: Factor of the scores.
        softcap: Bound of the scores, before the bias is added (-inf must stay -inf); 0 for none.

    Returns:
        (B, T, H, E).
    """
    groups = q_BTHE.size(2) // k_BSKE.size(2)
    if groups > 1:
        k_BSKE, v_BSKE = (x.repeat_interleave(groups, dim=2) for x in (k_BSKE, v_BSKE))
    scores_BHTS = torch.matmul(q_BTHE.transpose(1, 2) * scale, k_BSKE.permute(0, 2, 3, 1))
    scores_BHTS = soft_cap(scores_BHTS, softcap)
    if bias is not None:
        scores_BHTS = scores_BHTS + bias
    # The softmax is computed in fp32 at least: in bf16, a sum of 256 equal weights would already lose one of them.
    at_least = torch.promote_types(scores_BHTS.dtype, torch.float32)
    weights_BHTS = scores_BHTS.softmax(dim=-1, dtype=at_least).to(v_BSKE.dtype)
    return torch.matmul(weights_BHTS, v_BSKE.transpose(1, 2)).transpose(1, 2)


def attend_masked(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, softcap: float) -> Tensor:
    """Compute the same as `attend_eager`, by the fused kernel where scores have no soft cap."""
    if softcap:
        return attend_eager(q, k, v, bias, scale, softcap)
    grouped = q.size(2) != k.size(2)
    out = scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, scale=scale, enable_gqa=grouped
    )
    return out.transpose(1, 2)
