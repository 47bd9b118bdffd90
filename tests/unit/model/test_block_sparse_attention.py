"""Block-sparse attention equals attention by the definition, in documents of any length, packed and padded."""

from __future__ import annotations

import pytest
import torch
from tests.unit.model.test_sliding_window_attention import row

from pretextlm.model.block_sparse_attention import BlockSparsity, attend_block_sparse, block_sparse_mask
from pretextlm.model.config import AttentionConfig
from pretextlm.model.flops import block_sparse_pairs

CASES = [
    (60, [[60], [59]], BlockSparsity(4, 1)),
    (64, [[64], [10, 40, 14]], BlockSparsity(4, 0)),
    (70, [[30, 39], [5, 65], [3, 50]], BlockSparsity(3, 2)),
    (50, [[20, 30], [9, 8, 7, 6, 20]], BlockSparsity(5, 1)),
    (70, [[70], [33, 37]], BlockSparsity(3, 2, sample_random_blocks=True)),
]


def counted(length: int, sparsity: BlockSparsity, drawn: dict[int, list[int]]) -> torch.Tensor:
    """(T, T) how many times each token of a document of this length counts for each."""
    size, blocks = sparsity.block_size, -(-length // sparsity.block_size)
    times = torch.zeros(blocks, blocks)
    for n in range(blocks):
        if length <= sparsity.max_full_length or n in (0, blocks - 1):
            times[n] = 1
            continue
        for seen in (0, n - 1, n, n + 1, blocks - 1):
            times[n, seen] = 1
        if not sparsity.sample_random_blocks:
            times[n, 0] = 1 + sparsity.num_random_blocks
        for seen in drawn.get(n, []):
            assert times[n, seen] == 0
            times[n, seen] = 1
    return times.repeat_interleave(size, 0).repeat_interleave(size, 1)[:length, :length]


def by_definition(q, k, v, segments, sparsity, scale, softcap, drawn):
    groups = q.size(2) // k.size(2)
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    out = torch.zeros_like(q)
    for b in range(len(segments)):
        for number in segments[b][segments[b] >= 0].unique():
            at = (segments[b] == number).nonzero()[:, 0]
            scores = torch.einsum("the,she->hts", q[b, at], k[b, at]) * scale
            scores = softcap * torch.tanh(scores / softcap) if softcap else scores
            times = counted(len(at), sparsity, drawn(b, int(number)))
            weights = scores.exp() * times
            out[b, at] = torch.einsum("hts,she->the", weights / weights.sum(-1, keepdim=True), v[b, at])
    return out


def drawn_blocks(mask, segments):
    """For a row and a document, the blocks that were drawn for each of its blocks."""
    draws = mask.keys_MK.size(1) - mask.count_MK.size(1)
    assert draws == 0

    def of(b, number):
        found = {}
        for m, block in enumerate(mask.sparse_M.tolist()):
            token = int(mask.tokens_NR[block][0])
            if (token // segments.size(1), int(segments.flatten()[token])) == (b, number):
                first = int(mask.first_M[m])
                seen = mask.keys_MK[m, 5:][mask.count_MK[m, 5:] > 0]
                if int(mask.last_M[m]) - first + 1 > 5 + 2 * 2:
                    found[block - first] = (seen - first).tolist()
        return found

    return of


@pytest.mark.parametrize(("width", "lengths", "sparsity"), CASES)
@pytest.mark.parametrize("softcap", [0.0, 0.9])
def test_blocks_equal_the_definition_with_gradients(width, lengths, sparsity, softcap):
    generator = torch.Generator().manual_seed(0)
    rows = len(lengths)
    q = torch.randn(rows, width, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    k, v = (
        torch.randn(rows, width, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    segments, _ = row(width, lengths)
    mask = block_sparse_mask(segments, sparsity).for_layer(3)
    real = segments >= 0
    drawn = drawn_blocks(mask, segments) if sparsity.sample_random_blocks else lambda b, number: {}
    found = attend_block_sparse(q, k, v, mask, 0.4, softcap)[real]
    expected = by_definition(q, k, v, segments, sparsity, 0.4, softcap, drawn)[real]
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    for mine, theirs in zip(
        torch.autograd.grad(found.square().sum(), (q, k, v)),
        torch.autograd.grad(expected.square().sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-11, rtol=1e-9)


def test_drawn_blocks_are_new_ones_and_differ_from_layer_to_layer_but_not_from_row_to_row():
    sparsity = BlockSparsity(2, 3, sample_random_blocks=True)
    segments, _ = row(80, [[80], [80]])
    mask = block_sparse_mask(segments, sparsity)
    layers = [mask.for_layer(index) for index in range(4)]
    for layer in layers:
        half = len(layer.sparse_M) // 2
        shifted = torch.where(layer.count_MK[half:] > 0, layer.keys_MK[half:] - 40, 0)
        assert torch.equal(shifted, layer.keys_MK[:half])
        for seen, times in zip(layer.keys_MK.tolist(), layer.count_MK.tolist(), strict=True):
            used = [block for block, time in zip(seen, times, strict=True) if time]
            assert len(used) == len(set(used))
            assert len(used) in (7, 8)
    assert not torch.equal(layers[0].keys_MK, layers[1].keys_MK)
    often = torch.bincount(torch.cat([layer.keys_MK[:38, 5:].flatten() for layer in layers]), minlength=40)
    assert often[1:39].min() > 0
    assert often[0] == often[39] == 0


def test_a_row_of_padding_gives_zeros():
    q = torch.randn(1, 8, 2, 4)
    assert not attend_block_sparse(q, q, q, block_sparse_mask(torch.full((1, 8), -1), BlockSparsity(2)), 1.0).any()


def test_what_is_made_grows_with_the_row_and_not_with_its_square():
    sizes = []
    for length in (4096, 8192):
        mask = block_sparse_mask(row(length, [[length]])[0], BlockSparsity(64, 3))
        sizes.append(sum(value.numel() for value in vars(mask).values() if isinstance(value, torch.Tensor)))
    assert sizes[1] < 2.1 * sizes[0]
    assert len(mask.query_P) == 2 * 128
    assert mask.keys_MK.shape == (126, 5)


@pytest.mark.parametrize("draw", [False, True])
def test_the_operations_counted_are_those_of_the_pairs_that_see_each_other(draw):
    parts = AttentionConfig.parse({"block_size": 4, "num_random_blocks": 2, "sample_random_blocks": draw})
    mask = block_sparse_mask(row(64, [[64]])[0], BlockSparsity(4, 2, draw)).for_layer(0)
    assert block_sparse_pairs(parts, 64) == 16 * (int((mask.count_MK > 0).sum()) + len(mask.query_P))
    assert block_sparse_pairs(parts, 36) == 36 * 36
