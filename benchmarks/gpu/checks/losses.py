"""Losses and their gradients in half precision against float64."""

from __future__ import annotations

import torch
from benchmarks.gpu.checks.common import assert_near
from benchmarks.gpu.isolation import item
from torch.nn import functional

from pretextlm.model.loss import linear_cross_entropy, linear_divergence, softmax_eager, softmax_written_out

SECTION = "4 losses"
SIZES = {"cpu": (300, 1009, 64), "cuda": (20_000, 50_257, 768)}
"""Targets, an odd vocabulary, width."""


def given(device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    targets, vocabulary, width = SIZES[device]
    generator = torch.Generator(device).manual_seed(0)
    hidden = torch.randn(targets, width, generator=generator, device=device).bfloat16()
    weight = (torch.randn(vocabulary, width, generator=generator, device=device) * 0.1).bfloat16().float()
    return hidden, weight, torch.randint(0, vocabulary, (targets,), generator=generator, device=device)


@item(SECTION, seconds=180, cases=["eager", "compiled", "softcap", "full sums in products"])
def cross_entropy(device: str, case: str) -> str:
    hidden, weight, labels = given(device)
    # By default cuBLAS may add the parts of a long sum in bf16.
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = case != "full sums in products"
    softmax = torch.compile(softmax_written_out, dynamic=True) if case == "compiled" else softmax_eager
    softcap = 5.0 if case == "softcap" else 0.0
    one = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_cross_entropy(*one, labels, softcap, softmax)  # type: ignore[misc]
    loss.backward()
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    total = torch.zeros((), dtype=torch.float64, device=device)
    for rows in torch.arange(len(labels), device=device).split(2048):  # all logits in float64 would be large
        scores = exact[0][rows] @ exact[1].T
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        part = functional.cross_entropy(scores, labels[rows], reduction="sum")
        part.backward()
        total += part.detach()
    errors = [
        assert_near(loss[None], total[None], 1e-3, "loss"),
        assert_near(one[0].grad, exact[0].grad, 1e-2, "gradient of the hidden states"),  # type: ignore[arg-type]
        assert_near(one[1].grad, exact[1].grad, 1e-2, "gradient of the matrix"),  # type: ignore[arg-type]
    ]
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)


@item(SECTION)
def no_labels(device: str) -> str:
    hidden, weight, labels = given(device)
    one = [hidden[:0].requires_grad_(), weight.requires_grad_()]
    loss = linear_cross_entropy(one[0], one[1], labels[:0])
    loss.backward()
    assert float(loss.detach()) == 0, "a loss without targets"
    assert one[1].grad is not None, "no gradient"
    assert not one[1].grad.any(), "a gradient without targets"
    return "0"


@item(SECTION)
def divergence(device: str) -> str:
    """Of a student from its teacher, at a temperature."""
    hidden, weight, _ = given(device)
    hidden, teacher = hidden[:2000], hidden[:2000].flip(0)
    one = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    loss = linear_divergence(one[0], one[1], teacher, weight, 2.0)
    loss.backward()
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    logs = (exact[0] @ exact[1].T / 2).log_softmax(1)
    targets = (teacher.double() @ weight.double().T / 2).softmax(1)
    wanted = functional.kl_div(logs, targets, reduction="sum") * 4
    wanted.backward()
    errors = [
        assert_near(loss[None], wanted[None], 1e-2, "divergence"),
        assert_near(one[0].grad, exact[0].grad, 2e-2, "gradient of the hidden states"),  # type: ignore[arg-type]
        assert_near(one[1].grad, exact[1].grad, 2e-2, "gradient of the matrix"),  # type: ignore[arg-type]
    ]
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)
