"""The likeliest token found through coarse scores is that of the whole product."""

from __future__ import annotations

import pytest
import torch

from pretextlm.model import coarse
from pretextlm.model.coarse import CoarseHead

VOCAB, WIDTH = 3000, 48


def drawn(seed: int, rows: int = 40, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(VOCAB, WIDTH, generator=generator)
    return weight, scale * torch.randn(rows, WIDTH, generator=generator)


def free(scores: torch.Tensor) -> torch.Tensor:
    return scores


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_the_whole_product(seed, scale):
    weight, x = drawn(seed, scale=scale)
    found = CoarseHead(weight).likeliest(x, free)
    assert found is not None
    assert found.tolist() == (x.double() @ weight.double().T).argmax(dim=1).tolist()


def test_tokens_that_rounding_makes_alike_are_told_apart():
    weight, x = drawn(5)
    best = (x @ weight.T).argmax(dim=1)
    weight = torch.cat([weight, weight[best] * (1 + 1e-5)])  # better by less than bfloat16 can say
    found = CoarseHead(weight).likeliest(x, free)
    assert found is not None
    expected = (x.double() @ weight.double().T).argmax(dim=1)
    assert found.tolist() == expected.tolist()
    assert (found >= VOCAB).all()


def test_of_equal_tokens_the_lowest_is_taken():
    weight, x = drawn(6)
    found = CoarseHead(torch.cat([weight, weight])).likeliest(x, free)
    assert found is not None
    assert found.tolist() == (x @ weight.T).argmax(dim=1).tolist()


def test_scores_far_from_zero_do_not_hide_the_best():
    weight, x = drawn(7)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    weight = torch.cat([weight, torch.full((VOCAB, 1), -200.0)], dim=1)
    found = CoarseHead(weight).likeliest(x, free)
    assert found is not None
    assert found.tolist() == (x.double() @ weight.double().T).argmax(dim=1).tolist()


def test_forbidden_tokens_are_not_chosen():
    weight, x = drawn(8)
    first = (x @ weight.T).argmax(dim=1)
    never = first.unique()

    def constrain(scores: torch.Tensor) -> torch.Tensor:
        return scores.index_fill(1, never, float("-inf"))

    found = CoarseHead(weight).likeliest(x, constrain)
    assert found is not None
    assert found.tolist() == constrain(x @ weight.T).argmax(dim=1).tolist()


def test_where_all_is_alike_it_leaves_the_choice_to_the_whole_product():
    weight, x = drawn(9)
    assert CoarseHead(weight[:1].expand(VOCAB, -1)).likeliest(x, free) is None
    assert CoarseHead(weight).likeliest(x * float("nan"), free) is None


def test_small_heads_and_those_with_a_bias_do_without(monkeypatch):
    weight, _ = drawn(10)
    assert not CoarseHead.pays(weight, None)
    monkeypatch.setattr(coarse, "SMALLEST", 1)
    monkeypatch.setattr(coarse, "can_order", lambda device, dtype: True)
    assert CoarseHead.pays(weight, None)
    assert not CoarseHead.pays(weight, torch.zeros(VOCAB))
