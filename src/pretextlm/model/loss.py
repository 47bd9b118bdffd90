"""Losses of the head, chunk by chunk, with their gradients worked out on the way.

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


def chunk_of(hidden_ND: Tensor) -> int:
    """Targets whose logits are held at once on this device."""
    return CHUNK_CPU if hidden_ND.device.type == "cpu" else CHUNK_DEVICE


Softmax = Callable[[Tensor], tuple[Tensor, Tensor]]


def bounded(scores: Tensor, softcap: float) -> Tensor:
    """Scores bounded to ±softcap by tanh; as they are when it is 0."""
    return softcap * torch.tanh(scores / softcap) if softcap else scores


def softmax_written_out(scores_CV: Tensor) -> tuple[Tensor, Tensor]:
    """(softmax of each row in the scores' type, log of its normaliser (C,) in fp32), for a compiler to fuse."""
    values_CV = scores_CV.float()
    top_C1 = values_CV.amax(dim=1, keepdim=True)
    powers_CV = (values_CV - top_C1).exp()
    sum_C1 = powers_CV.sum(dim=1, keepdim=True)
    return (powers_CV * sum_C1.reciprocal()).to(scores_CV.dtype), (sum_C1.log() + top_C1)[:, 0]


def softmax_eager(scores_CV: Tensor) -> tuple[Tensor, Tensor]:
    """The same by torch's own kernel, which is faster where nothing is compiled."""
    logs_CV = scores_CV.log_softmax(dim=1, dtype=torch.float32)
    normaliser_C = scores_CV[:, 0].float() - logs_CV[:, 0]
    return logs_CV.exp_().to(scores_CV.dtype), normaliser_C


def _scaled(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients worked out on the way, of hidden states and matrix, times that of the sum."""
    grad_hidden, grad_weight, *_ = ctx.saved_tensors
    return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, softmax: Softmax, bias_V: Tensor | None
    ) -> Tensor:
        weight = weight_VD.to(hidden_ND.dtype)
        bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if wanted else None
        grad_weight = torch.zeros_like(weight_VD) if wanted else None
        grad_bias = torch.zeros_like(bias_V) if wanted and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = chunk_of(hidden_ND)
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            labels_C = labels_N[rows]
            at_label = (torch.arange(len(labels_C), device=labels_C.device), labels_C)
            scores_CV = functional.linear(hidden_ND[rows], weight, bias)
            gradient_CV, normaliser_C = softmax(scores_CV)
            log_probability_C = scores_CV[at_label].float() - normaliser_C
            total -= log_probability_C.sum()
            if grad_hidden is not None and grad_weight is not None:
                # p - onehot, exact at the label: a rounded p of nearly 1 would leave nothing of it
                gradient_CV[at_label] = log_probability_C.expm1().to(gradient_CV.dtype)
                torch.mm(gradient_CV, weight, out=grad_hidden[rows])
                grad_weight += gradient_CV.T @ hidden_ND[rows]
                if grad_bias is not None:
                    grad_bias += gradient_CV.sum(dim=0, dtype=torch.float32)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, Tensor | None]:
        (scale,) = grad_outputs
        *_, grad_bias = ctx.saved_tensors
        return *_scaled(ctx, scale), None, None, None if grad_bias is None else grad_bias * scale


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    softcap: float = 0.0,
    softmax: Softmax = softmax_eager,
    bias_V: Tensor | None = None,
) -> Tensor:
    """Summed cross-entropy, in nats, of softmax(hidden · weightᵀ + bias) against the labels; 0 when there are none.

    Args:
        hidden_ND: final hidden states of the labelled positions.
        weight_VD: the head's matrix, in fp32; rounded to the type of `hidden_ND` for the product.
        labels_N: int64 targets.
        softcap: bound of the logits; with one, the plain formula is used.
        softmax: the eager one, or the one written out and compiled.
        bias_V: of the head, in fp32; None for none.
    """
    if softcap:
        bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
        scores_NV = functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype), bias).float()
        return functional.cross_entropy(bounded(scores_NV, softcap), labels_N, reduction="sum")
    total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, labels_N, softmax, bias_V
    )
    return total


class _LinearDivergence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        teacher_NE: Tensor,
        teacher_VE: Tensor,
        temperature: float,
        softcaps: tuple[float, float],
        bias_V: Tensor | None,
        teacher_bias_V: Tensor | None,
    ) -> Tensor:
        weight, teacher = weight_VD.to(hidden_ND.dtype), teacher_VE.to(teacher_NE.dtype)
        bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
        teacher_bias = None if teacher_bias_V is None else teacher_bias_V.to(teacher_NE.dtype)
        wanted = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if wanted else None
        grad_weight = torch.zeros_like(weight_VD) if wanted else None
        grad_bias = torch.zeros_like(bias_V) if wanted and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = chunk_of(hidden_ND)
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            scores_CV = bounded(functional.linear(hidden_ND[rows], weight, bias).float(), softcaps[0])
            logs_CV = (scores_CV / temperature).log_softmax(dim=1)
            teacher_CV = bounded(functional.linear(teacher_NE[rows], teacher, teacher_bias).float(), softcaps[1])
            wanted_CV = (teacher_CV / temperature).log_softmax(dim=1)
            soft_CV = wanted_CV.exp()
            total += (soft_CV * (wanted_CV - logs_CV)).sum() * temperature**2
            if grad_hidden is not None and grad_weight is not None:
                gradient_CV = (logs_CV.exp_() - soft_CV).mul_(temperature)
                if softcaps[0]:
                    gradient_CV *= 1 - (scores_CV / softcaps[0]).square()
                if grad_bias is not None:
                    grad_bias += gradient_CV.sum(dim=0)
                gradient_CV = gradient_CV.to(hidden_ND.dtype)
                torch.mm(gradient_CV, weight, out=grad_hidden[rows])
                grad_weight += gradient_CV.T @ hidden_ND[rows]
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        *_, grad_bias = ctx.saved_tensors
        return *_scaled(ctx, scale), None, None, None, None, None if grad_bias is None else grad_bias * scale, None


def linear_divergence(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    teacher_NE: Tensor,
    teacher_VE: Tensor,
    temperature: float,
    softcaps: tuple[float, float] = (0.0, 0.0),
    bias_V: Tensor | None = None,
    teacher_bias_V: Tensor | None = None,
) -> Tensor:
    """Summed T² · KL(teacher || student) of the two heads' distributions at temperature T, in nats.

    The factor T² keeps the gradient's size when T changes (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). Both
    sets of logits are made chunk by chunk; only the student gets a gradient.

    Args:
        hidden_ND, weight_VD: the student's states and head.
        teacher_NE, teacher_VE: the teacher's.
        softcaps: bounds of the student's and of the teacher's logits; 0: not bounded.
        bias_V, teacher_bias_V: of the student's and of the teacher's head, in fp32; None for none.
    """
    total: Tensor = _LinearDivergence.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, teacher_NE, teacher_VE, temperature, softcaps, bias_V, teacher_bias_V
    )
    return total
