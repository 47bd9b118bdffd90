"""Losses of the language-model head, chunk by chunk, with their gradients computed in the forward pass.

The logits of all targets at once are the largest arrays of a step, and they are read and written many times: as scores,
in fp32, as log-probabilities, as a gradient. But the gradient of a chunk is known as soon as its softmax is: for
cross-entropy, d loss / d logits = softmax(logits) - onehot(label). So each chunk of C targets is multiplied by the
head's matrix, its softmax is taken, and its gradient is multiplied back at once:

    scores   = hidden_CD · weightᵀ                       (C, V)
    gradient = softmax(scores) - onehot(label)           (C, V)
    grad of hidden_CD = gradient · weight                (C, D)
    grad of weight   += gradientᵀ · hidden_CD            (V, D)

Nothing of size N × V is stored or computed twice, and memory does not grow with the number of targets. The backward
pass only multiplies both gradients by the gradient of the sum (the loss may be scaled afterwards). For scores
(1, 2, 3) and label 2, counted from 0: softmax = (.090, .245, .665), loss = -log .665 = .408, gradient = (.090, .245,
-.335).

Axis letters: N targets, C targets of a chunk, D hidden_size, V vocab_size, E width of a teacher's hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pretextlm.model.layers import soft_cap

CHUNK_CPU = 1024
CHUNK_DEVICE = 8192


def chunk_of(device: torch.device) -> int:
    """Returns how many targets' logits are held at once on this device, where nothing else is asked for."""
    return CHUNK_CPU if device.type == "cpu" else CHUNK_DEVICE


Softmax = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Scores (C, V) → (softmax of each row in the scores' type, log of its normalizer (C,) in fp32)."""


def softmax_written_out(scores_CV: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the softmax and its log-normalizer in elementary operations, for a compiler to fuse.

    The row's maximum is subtracted before exp, which would overflow from 89 on, and is added to the log again:
    log Σ exp(s) = m + log Σ exp(s - m).
    """
    values_CV = scores_CV.float()
    max_C1 = values_CV.amax(dim=1, keepdim=True)
    exp_CV = (values_CV - max_C1).exp()
    sum_C1 = exp_CV.sum(dim=1, keepdim=True)
    return (exp_CV * sum_C1.reciprocal()).to(scores_CV.dtype), (sum_C1.log() + max_C1)[:, 0]


def compiled_softmax() -> Softmax:
    """Compile `softmax_written_out` for any number of rows; the vocabulary is a constant of the generated code."""
    compiled = torch.compile(softmax_written_out, dynamic=False)

    def softmax(scores_CV: Tensor) -> tuple[Tensor, Tensor]:
        torch._dynamo.maybe_mark_dynamic(scores_CV, 0)
        return compiled(scores_CV)

    return softmax


def softmax_eager(scores_CV: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the same by torch's own kernel, which is faster where nothing is compiled.

    A log-probability is score - log-normalizer, so the first column gives the normalizer back.
    """
    logs_CV = scores_CV.log_softmax(dim=1, dtype=torch.float32)
    normalizer_C = scores_CV[:, 0].float() - logs_CV[:, 0]
    return logs_CV.exp_().to(scores_CV.dtype), normalizer_C


def _scaled(ctx: Any, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of hidden states and matrix, times that of the sum."""
    grad_hidden, grad_weight, *_ = ctx.saved_tensors
    return grad_hidden * scale.to(grad_hidden.dtype), grad_weight * scale


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        labels_N: Tensor,
        softmax: Softmax,
        bias_V: Tensor | None,
        chunk: int,
    ) -> Tensor:
        weight = weight_VD.to(hidden_ND.dtype)
        bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
        needs_grad = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if needs_grad else None
        grad_weight = torch.zeros_like(weight_VD) if needs_grad else None
        grad_bias = torch.zeros_like(bias_V) if needs_grad and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = chunk or chunk_of(hidden_ND.device)
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            labels_C = labels_N[rows]
            at_label = (torch.arange(len(labels_C), device=labels_C.device), labels_C)
            scores_CV = functional.linear(hidden_ND[rows], weight, bias)
            gradient_CV, normalizer_C = softmax(scores_CV)
            log_probability_C = scores_CV[at_label].float() - normalizer_C
            total -= log_probability_C.sum()
            if grad_hidden is not None and grad_weight is not None:
                # p - onehot. At the label it is p - 1 = expm1(log p), computed in fp32: p rounded to bf16 has steps of
                # 1/256 below 1, so p = 0.999 would round to 1 and leave no gradient, where expm1 gives -0.001.
                gradient_CV[at_label] = log_probability_C.expm1().to(gradient_CV.dtype)
                torch.mm(gradient_CV, weight, out=grad_hidden[rows])
                grad_weight += gradient_CV.T @ hidden_ND[rows]
                if grad_bias is not None:
                    grad_bias += gradient_CV.sum(dim=0, dtype=torch.float32)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (scale,) = grad_outputs
        *_, grad_bias = ctx.saved_tensors
        return *_scaled(ctx, scale), None, None, None if grad_bias is None else grad_bias * scale, None


def linear_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    labels_N: Tensor,
    softcap: float = 0.0,
    softmax: Softmax = softmax_eager,
    bias_V: Tensor | None = None,
    chunk: int = 0,
) -> Tensor:
    """Compute the cross-entropy of softmax(hidden · weightᵀ + bias) against the labels.

    Args:
        hidden_ND: Input of the head's matrix at the labelled positions.
        weight_VD: The head's matrix, in fp32; cast to the type of `hidden_ND` for the product.
        labels_N: int64 targets.
        softcap: Bound of the logits; with one, the plain formula is used, which holds all logits.
        softmax: The eager one, or the written-out one, compiled.
        bias_V: Bias of the head, in fp32; None for none.
        chunk: C, how many targets' logits are held at once; 0 for what suits the device.

    Returns:
        Scalar in fp32, summed over the targets, in nats; 0 when there are none.
    """
    if softcap:
        bias = None if bias_V is None else bias_V.to(hidden_ND.dtype)
        scores_NV = functional.linear(hidden_ND, weight_VD.to(hidden_ND.dtype), bias).float()
        return functional.cross_entropy(soft_cap(scores_NV, softcap), labels_N, reduction="sum")
    total: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, labels_N, softmax, bias_V, chunk
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
        needs_grad = any(ctx.needs_input_grad)
        grad_hidden = torch.empty_like(hidden_ND) if needs_grad else None
        grad_weight = torch.zeros_like(weight_VD) if needs_grad else None
        grad_bias = torch.zeros_like(bias_V) if needs_grad and bias_V is not None else None
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        chunk = chunk_of(hidden_ND.device)
        for start in range(0, hidden_ND.size(0), chunk):
            rows = slice(start, start + chunk)
            scores_CV = soft_cap(functional.linear(hidden_ND[rows], weight, bias).float(), softcaps[0])
            logs_CV = (scores_CV / temperature).log_softmax(dim=1)
            teacher_CV = soft_cap(functional.linear(teacher_NE[rows], teacher, teacher_bias).float(), softcaps[1])
            teacher_logs_CV = (teacher_CV / temperature).log_softmax(dim=1)
            targets_CV = teacher_logs_CV.exp()
            total += (targets_CV * (teacher_logs_CV - logs_CV)).sum() * temperature**2
            if grad_hidden is not None and grad_weight is not None:
                # d(T² · KL) / d scores = T² · (student - teacher) / T
                gradient_CV = (logs_CV.exp_() - targets_CV).mul_(temperature)
                if softcaps[0]:  # d tanh(x) / dx = 1 - tanh²(x), and tanh(x) is the bounded score over its bound
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
    """Compute T² · KL(teacher || student) of the two heads' distributions at temperature T.

    The factor T² keeps the gradient's size when T changes (Hinton et al. 2015, https://arxiv.org/abs/1503.02531). Both
    sets of logits are computed chunk by chunk; only the student gets a gradient.

    Args:
        hidden_ND: The student's input of its head's matrix.
        weight_VD: The student's matrix.
        teacher_NE: The teacher's input of its head's matrix.
        teacher_VE: The teacher's matrix.
        temperature: T.
        softcaps: Bounds of the student's and of the teacher's logits; 0 for none.
        bias_V: Bias of the student's head, in fp32; None for none.
        teacher_bias_V: Bias of the teacher's head.

    Returns:
        Scalar in fp32, summed over the N positions, in nats.
    """
    total: Tensor = _LinearDivergence.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, teacher_NE, teacher_VE, temperature, softcaps, bias_V, teacher_bias_V
    )
    return total
