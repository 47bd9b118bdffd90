"""Cross-entropy of the head, chunk by chunk, with its gradient worked out on the way.

The logits of all targets at once are the largest arrays of a step, and they are read and written many times: as
scores, in fp32, as log-probabilities, as a gradient. A chunk of some hundred rows stays in the cache, and its gradient
is known as soon as its softmax is: p - onehot. So nothing is kept or computed twice, and the memory does not grow with
the targets.

Axis letters: N targets, C targets of a chunk, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_CPU = 256
CHUNK_DEVICE = 8192


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor) -> Tensor:
        weight = weight_VD.to(hidden_ND.dtype)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if wanted else None
        grad_weight = torch.zeros_like(weight_VD) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = CHUNK_CPU if hidden_ND.device.type == "cpu" else CHUNK_DEVICE
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            labels_C1 = labels_N[rows, None]
            scores_CV = (hidden_ND[rows] @ weight.T).float()
            normaliser = scores_CV.logsumexp(dim=1, keepdim=True)
            total += (normaliser - scores_CV.gather(1, labels_C1)).sum()
            if grad_hidden is None or grad_weight is None:
                continue
            gradient = scores_CV.sub_(normaliser).exp_()
            gradient.scatter_add_(1, labels_C1, gradient.new_full(labels_C1.shape, -1.0))
            gradient = gradient.to(hidden_ND.dtype)
            torch.mm(gradient, weight, out=grad_hidden[rows])
            grad_weight += gradient.T @ hidden_ND[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None


def linear_cross_entropy(hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, softcap: float = 0.0) -> Tensor:
    """Summed cross-entropy, in nats, of softmax(hidden · weightᵀ) against the labels; 0 when there are none.

    Args:
        hidden_ND: final hidden states of the labelled positions.
        weight_VD: the head's matrix, in fp32; rounded to the type of `hidden_ND` for the product.
        labels_N: int64 targets.
        softcap: bound of the logits; with one, the plain formula is used.
    """
    if softcap:
        scores_NV = functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype)).float()
        capped_NV = softcap * torch.tanh(scores_NV / softcap)
        return functional.cross_entropy(capped_NV, labels_N, reduction="sum")
    total: Tensor = _LinearCrossEntropy.apply(hidden_ND, weight_VD, labels_N)  # type: ignore[no-untyped-call]
    return total
