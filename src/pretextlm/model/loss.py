"""Cross-entropy of the head, chunk by chunk, with its gradient worked out on the way.

The logits of all targets at once are the largest arrays of a step, and they are read and written many times: as scores,
in fp32, as log-probabilities, as a gradient. The gradient of a chunk is known as soon as its softmax is: p - onehot. So
nothing is kept or computed twice, and the memory does not grow with the targets.

Axis letters: N targets, C targets of a chunk, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

CHUNK_CPU = 1024
CHUNK_DEVICE = 8192

ScoreGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def score_gradient(scores_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """(summed cross-entropy in fp32, its gradient softmax(scores) - onehot(labels) in the scores' type).

    Written out, so that the compiler makes few passes over the scores of it.
    """
    values_CV = scores_CV.float()
    top_C1 = values_CV.amax(dim=1, keepdim=True)
    powers_CV = (values_CV - top_C1).exp()
    sum_C1 = powers_CV.sum(dim=1, keepdim=True)
    total = (sum_C1.log() + top_C1).sum() - values_CV.gather(1, labels_C[:, None]).sum()
    onehot_CV = torch.arange(scores_CV.size(1), device=scores_CV.device) == labels_C[:, None]
    return total, (powers_CV / sum_C1 - onehot_CV.float()).to(scores_CV.dtype)


def score_gradient_eager(scores_CV: Tensor, labels_C: Tensor) -> tuple[Tensor, Tensor]:
    """The same in place, with fewer passes where nothing is compiled."""
    values_CV = scores_CV.log_softmax(dim=1, dtype=torch.float32)
    total = -values_CV.gather(1, labels_C[:, None]).sum()
    values_CV.exp_().scatter_add_(1, labels_C[:, None], values_CV.new_full((len(labels_C), 1), -1.0))
    return total, values_CV.to(scores_CV.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, gradient: ScoreGradient) -> Tensor:
        weight = weight_VD.to(hidden_ND.dtype)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if wanted else None
        grad_weight = torch.zeros_like(weight_VD) if wanted else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = CHUNK_CPU if hidden_ND.device.type == "cpu" else CHUNK_DEVICE
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            part, grad_scores_CV = gradient(hidden_ND[rows] @ weight.T, labels_N[rows])
            total += part
            if grad_hidden is not None and grad_weight is not None:
                torch.mm(grad_scores_CV, weight, out=grad_hidden[rows])
                grad_weight += grad_scores_CV.T @ hidden_ND[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (scale,) = grad_outputs
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale, None, None


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    softcap: float = 0.0,
    gradient: ScoreGradient = score_gradient_eager,
) -> Tensor:
    """Summed cross-entropy, in nats, of softmax(hidden · weightᵀ) against the labels; 0 when there are none.

    Args:
        hidden_ND: final hidden states of the labelled positions.
        weight_VD: the head's matrix, in fp32; rounded to the type of `hidden_ND` for the product.
        labels_N: int64 targets.
        softcap: bound of the logits; with one, the plain formula is used.
        gradient: `score_gradient`, compiled or not.
    """
    if softcap:
        scores_NV = functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype)).float()
        capped_NV = softcap * torch.tanh(scores_NV / softcap)
        return functional.cross_entropy(capped_NV, labels_N, reduction="sum")
    total: Tensor = _LinearCrossEntropy.apply(hidden_ND, weight_VD, labels_N, gradient)  # type: ignore[no-untyped-call]
    return total
