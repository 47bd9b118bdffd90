"""The chunked cross-entropy is the plain one, value and gradients."""

import pytest
import torch
from torch.nn import functional

from pretextlm.model import loss as module
from pretextlm.model.loss import linear_cross_entropy, score_gradient, score_gradient_eager


def plain(hidden, weight, labels, softcap=0.0):
    scores = hidden @ weight.T
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    return functional.cross_entropy(scores.float(), labels, reduction="sum")


@pytest.mark.parametrize("targets", [1, 5, 64, 131])
@pytest.mark.parametrize("softcap", [0.0, 5.0])
def test_value_and_gradients_equal_the_plain_formula(monkeypatch, targets, softcap):
    monkeypatch.setattr(module, "CHUNK_CPU", 32)
    torch.manual_seed(targets)
    labels = torch.randint(0, 50, (targets,))
    results = []
    for function in (plain, linear_cross_entropy):
        torch.manual_seed(0)
        hidden = torch.randn(targets, 16, dtype=torch.float64).float().requires_grad_()
        weight = torch.randn(50, 16).requires_grad_()
        total = function(hidden, weight, labels, softcap)
        (total * 0.37).backward()
        results.append((total, hidden.grad, weight.grad))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_forms_of_the_gradient_are_autograd_s(dtype):
    torch.manual_seed(0)
    scores, labels = (torch.randn(9, 30) * 3).to(dtype), torch.randint(0, 30, (9,))
    wanted = scores.float().requires_grad_()
    total = functional.cross_entropy(wanted, labels, reduction="sum")
    total.backward()
    for form in (score_gradient, score_gradient_eager):
        mine, gradient = form(scores.clone(), labels)
        torch.testing.assert_close(mine, total.detach())
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, wanted.grad.to(dtype), atol=1e-6, rtol=1e-2)


def test_no_target_is_zero_and_never_nan():
    hidden, weight = torch.zeros(0, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    total = linear_cross_entropy(hidden, weight, torch.zeros(0, dtype=torch.int64))
    total.backward()
    assert total.item() == 0.0
    assert weight.grad.abs().max() == 0.0


def test_no_gradient_is_worked_out_when_none_is_wanted():
    hidden, weight, labels = torch.randn(300, 16), torch.randn(50, 16), torch.randint(0, 50, (300,))
    total = linear_cross_entropy(hidden, weight, labels)
    assert not total.requires_grad
    torch.testing.assert_close(total, plain(hidden, weight, labels), rtol=1e-5, atol=1e-3)
