"""Pruning by magnitude: exactly the share asked for, and the largest stay."""

from __future__ import annotations

import pytest
import torch
from tests.builders import make_model

from pretextlm.compression.magnitude import parse_pattern, prune_pattern, prune_share, prune_weights, zeros
from pretextlm.errors import UserError
from pretextlm.model.block_matrices import is_block_matrix


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sparsity", [0.1, 0.2, 0.5, 0.8, 0.999])
def test_exactly_the_share_asked_for_is_zero_and_what_stays_is_the_largest(sparsity):
    weight = random(30, 41)
    pruned = prune_share(weight, sparsity)
    gone = pruned == 0
    assert int(gone.sum()) == round(sparsity * weight.numel())
    assert torch.equal(pruned[~gone], weight[~gone])
    assert weight[gone].abs().max() <= weight[~gone].abs().min()


def test_equal_weights_lose_exactly_the_share_too():
    assert int((prune_share(torch.ones(10, 10), 0.25) == 0).sum()) == 25


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 2), (4, 8), (1, 4)])
def test_every_group_keeps_as_many_as_the_pattern_says_and_those_are_its_largest(kept, group):
    weight = random(12, 24)
    pruned = prune_pattern(weight, kept, group).view(-1, group)
    whole = weight.view(-1, group)
    assert ((pruned != 0).sum(1) == kept).all()
    assert torch.equal(pruned[pruned != 0], whole[pruned != 0])
    least = whole.abs().masked_fill(pruned == 0, float("inf")).amin(1)
    most = whole.abs().masked_fill(pruned != 0, 0).amax(1)
    assert (most <= least).all()


def test_matrices_of_the_blocks_are_pruned_and_nothing_else():
    weights = make_model().state_dict()
    for pruned in (prune_weights(weights, sparsity=0.5), prune_weights(weights, pattern="2:4")):
        for name, weight in weights.items():
            assert is_block_matrix(name) == name.endswith("_proj.weight"), name
            if is_block_matrix(name):
                assert int((pruned[name] == 0).sum()) == weight.numel() // 2
            else:
                assert pruned[name] is weight
        assert zeros(pruned)[0] * 2 == zeros(pruned)[1]


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(sparsity):
    with pytest.raises(UserError, match="not between 0 and 1"):
        prune_weights(make_model().state_dict(), sparsity=sparsity)


@pytest.mark.parametrize("text", ["2", "4:2", "0:4", "4:4", "2:4:8", "a:b", "", "2 : 4", "2:100000"])
def test_a_pattern_that_is_none_is_refused(text):
    with pytest.raises(UserError, match="not a pattern"):
        parse_pattern(text)


def test_a_pattern_that_does_not_divide_the_rows_is_refused():
    with pytest.raises(UserError, match="do not divide"):
        prune_weights(make_model(hidden_size=24, num_attention_heads=4).state_dict(), pattern="3:7")
