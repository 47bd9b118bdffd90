"""The chunked cross-entropy is the plain one, value and gradients."""

import functools

import pytest
import torch
from torch.nn import functional

from pretextlm.model import loss as module
from pretextlm.model.loss import compiled_softmax, linear_cross_entropy, softmax_eager, softmax_written_out


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


@pytest.mark.parametrize("softmax", [softmax_eager, softmax_written_out])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_softmaxes_are_torch_s_and_know_their_normaliser(softmax, dtype):
    torch.manual_seed(0)
    scores = (torch.randn(9, 30) * 30).to(dtype)
    found, normaliser = softmax(scores.clone())
    assert found.dtype == dtype
    torch.testing.assert_close(found, scores.float().softmax(1).to(dtype), atol=1e-6, rtol=1e-2)
    torch.testing.assert_close(normaliser, scores.float().logsumexp(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("softmax", [softmax_eager, softmax_written_out])
def test_a_confident_model_still_gets_its_gradient_in_half_precision(softmax):
    """p = 1 - 1e-4 rounds to 1 in bf16, but the gradient at the label is -1e-4 and must stay."""
    hidden = torch.tensor([[1.0]], dtype=torch.bfloat16, requires_grad=True)
    weight = torch.tensor([[9.2], [0.0]], requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.tensor([0]), softmax=softmax).backward()
    expected = torch.tensor(-9.1875).exp().item()
    assert weight.grad[0].item() == pytest.approx(-expected, rel=2e-2)


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


def test_one_compiled_softmax_serves_any_number_of_rows_of_one_vocabulary(monkeypatch):
    shapes = []

    def keep(graph, inputs):
        values = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
        shapes.extend(tuple(value.shape) for value in values if isinstance(value, torch.Tensor))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=keep))
    softmax = compiled_softmax()
    for rows in (64, 100, 37):
        scores = torch.randn(rows, 50)
        torch.testing.assert_close(softmax(scores)[0], scores.softmax(1))
    ((rows, vocabulary),) = shapes
    assert isinstance(rows, torch.SymInt)
    assert vocabulary == 50
    assert isinstance(vocabulary, int)


@pytest.mark.parametrize("chunk", [1, 7, 300])
def test_the_loss_does_not_depend_on_the_chunk(chunk):
    torch.manual_seed(0)
    hidden, weight = torch.randn(30, 16, dtype=torch.float64), torch.randn(50, 16, dtype=torch.float64)
    labels, results = torch.randint(0, 50, (30,)), []
    for size in (0, chunk):
        leaves = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        total = linear_cross_entropy(*leaves, labels, chunk=size)
        total.backward()
        results.append((total, *(leaf.grad for leaf in leaves)))
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
