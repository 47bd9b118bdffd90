"""Block-sparse attention in time and memory that grow linearly with the row.

A document is cut into blocks of R tokens. Its first and its last block attend to all of it; the others attend to
themselves, their neighbours, the first and the last block, and r random ones (BigBird, Zaheer et al. 2020,
https://arxiv.org/abs/2007.14062):

    block 0    ■ ■ ■ ■ ■ ■ ■ ■
    block 1    ■ ■ ■ · · ? · ■      ? sampled at random, where that is configured
    block 2    ■ ■ ■ ■ · · ? ■
    block 3    ■ ? ■ ■ ■ · · ■
    …
    block 7    ■ ■ ■ ■ ■ ■ ■ ■

Blocks are counted from each document's beginning, so that it is read alike wherever it is packed or padded; one of at
most (5 + 2r)·R tokens has full attention.

Random blocks are sampled once for each layer, the same for all heads, in training and in inference. Where they are not
sampled, the first block counts 1 + r times in the softmax instead: transformers computes the same for a BigBird in
eval mode, whose random blocks are then all the first one.

How it is computed: all tokens of the batch are laid out as N blocks. The M "sparse" blocks attend to at most K others;
their keys are gathered to (M, K·R), and a block that counts n times gets log n added to its scores, because
n · exp(s) = exp(s + log n). The G "full" blocks at the ends of long documents have documents of different lengths, so
they are computed as P pairs of a full block and one that it attends to, and put together (`_attend_pairs`).

Axis letters: B rows, T positions, N blocks of all rows, R tokens of a block, M sparse blocks, K blocks that one of them
attends to, G full blocks, P pairs of a full block and one that it attends to, H heads, E head_dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pretextlm.counter_rng import CounterRNG
from pretextlm.model.biased_attention import attend_masked
from pretextlm.model.layers import soft_cap

FIXED_BLOCKS = 5
"""Blocks that an inner block attends to, apart from random ones: itself, two neighbours, the first and the last."""


class BlockSparsity(NamedTuple):
    """Which blocks attend to which.

    Attributes:
        block_size: R.
        num_random_blocks: r.
        sample_random_blocks: The random blocks are sampled; else the first block counts so many times more.
    """

    block_size: int
    num_random_blocks: int = 0
    sample_random_blocks: bool = False

    @property
    def max_full_length(self) -> int:
        """Tokens up to which a document has full attention."""
        return (FIXED_BLOCKS + 2 * self.num_random_blocks) * self.block_size


@dataclass(frozen=True)
class BlockSparseMask:
    """A block-sparse mask, computed once per batch.

    Attributes:
        tokens_NR: Flat position in the batch of each token of each block; 0 where there is none.
        is_token_NR: Which of these slots hold a token.
        slot_BT: The slot of each position; 0 for padding.
        sparse_M: Numbers of the sparse blocks: those of short documents, and the inner ones of long documents.
        keys_MK: Blocks that each of these attends to.
        count_MK: How many times each counts in the softmax; 0 for not at all.
        first_M: First block of the document that each is in.
        last_M: Last block of that document.
        full_G: Numbers of the full blocks.
        query_P: Which of the full blocks each pair is of.
        key_P: The block that it attends to.
        random_blocks: Random blocks still to be sampled, by `for_layer`.
        keys_of_samples: Number of blocks of the document that each sparse block is in, less 1, and the block's place in
            it, on the host; None once the random blocks are sampled.
    """

    tokens_NR: Tensor
    is_token_NR: Tensor
    slot_BT: Tensor
    sparse_M: Tensor
    keys_MK: Tensor
    count_MK: Tensor
    first_M: Tensor
    last_M: Tensor
    full_G: Tensor
    query_P: Tensor
    key_P: Tensor
    random_blocks: int = 0
    keys_of_samples: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def to(self, device: torch.device) -> BlockSparseMask:
        """Returns the mask on a device."""
        moved: dict[str, Any] = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)

    def for_layer(self, index: int) -> BlockSparseMask:
        """Sample the random blocks of a layer.

        The blocks that a sparse block does not attend to anyway are cut into r equal parts, and one is sampled from
        each, so no block is sampled twice. In a document of 12 blocks (0 … 11), block 4 has its neighbours 3 … 5, so
        the free blocks are 1, 2, 6 … 10; with r = 2 the parts are 1, 2, 6 and 7 … 10. Free blocks are numbered without
        the neighbours, and numbers from the lower neighbour on are shifted past them.

        Args:
            index: Number of the layer, on which the samples depend.
        """
        if self.keys_of_samples is None:
            return self
        low_M = torch.maximum(self.sparse_M - 1, self.first_M + 1)
        neighbours_M = torch.minimum(self.sparse_M + 1, self.last_M - 1) - low_M + 1
        length_M = self.last_M - self.first_M
        long_M = length_M >= FIXED_BLOCKS + 2 * self.random_blocks
        free_M = torch.where(long_M, length_M - 1 - neighbours_M, 0)
        # Keyed by the layer, the document's number of blocks and the block's place in it: independent of the batch.
        uniform = CounterRNG.of(index, *self.keys_of_samples).uniform(0, self.random_blocks)
        uniform_Mr = torch.from_numpy(uniform).to(low_M.device, non_blocking=True)
        bounds = torch.arange(self.random_blocks + 1, device=low_M.device) * free_M[:, None] // self.random_blocks
        pick_Mr = bounds[:, :-1] + (uniform_Mr * (bounds[:, 1:] - bounds[:, :-1])).long()
        random_Mr = self.first_M[:, None] + 1 + pick_Mr
        random_Mr = random_Mr + (random_Mr >= low_M[:, None]) * neighbours_M[:, None]
        return dataclasses.replace(
            self,
            keys_MK=torch.cat([self.keys_MK, torch.where(long_M[:, None], random_Mr, 0)], dim=1),
            count_MK=torch.cat([self.count_MK, long_M[:, None].expand_as(random_Mr)], dim=1),
            random_blocks=0,
            keys_of_samples=None,
        )


def block_sparse_mask(segments_BT: Tensor, sparsity: BlockSparsity) -> BlockSparseMask:
    """Build the mask of rows of documents, each of them contiguous.

    A row of documents of 3 and 5 tokens with R = 2 gives blocks of slots

        [a0 a1] [a2 --] [b0 b1] [b2 b3] [b4 --]

    where -- is a slot without a token: a document's last block is its own.

    Args:
        segments_BT: Document of each position, -1 for padding. On the host: the numbers of blocks depend on them, for
            which a device would have to be waited for.
        sparsity: Size and number of blocks.
    """
    size, device = sparsity.block_size, segments_BT.device
    begins = torch.ones_like(segments_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    real = (segments_BT >= 0).flatten()
    begins &= segments_BT >= 0
    tokens = real.nonzero()[:, 0]
    document = begins.flatten().cumsum(0)[tokens] - 1  # number of each token's document in the batch
    lengths = torch.bincount(document)
    counts = (lengths + size - 1) // size  # blocks of each document
    starts, ends = lengths.cumsum(0) - lengths, counts.cumsum(0)
    # slot = first slot of the document + position of the token in its document
    slots = (ends - counts)[document] * size + torch.arange(len(tokens), device=device) - starts[document]
    blocks = int(ends[-1]) if len(ends) else 0
    is_token = torch.zeros(blocks * size, dtype=torch.bool, device=device)
    is_token[slots] = True
    tokens_NR = torch.zeros(blocks * size, dtype=torch.int64, device=device)
    tokens_NR[slots] = tokens
    slot_BT = torch.zeros(segments_BT.numel(), dtype=torch.int64, device=device)
    slot_BT[tokens] = slots

    number = torch.arange(blocks, device=device)
    document_N = torch.repeat_interleave(counts)
    first_N, last_N = (ends - counts)[document_N], ends[document_N] - 1
    long_N = lengths[document_N] > sparsity.max_full_length
    full_N = long_N & ((number == first_N) | (number == last_N))
    full_G, sparse_M = full_N.nonzero()[:, 0], (~full_N).nonzero()[:, 0]
    # Pairs of each full block with every block of its document: for counts 3 and 2 the pairs are
    # query_P = 0 0 0 1 1 and nth_P = 0 1 2 0 1, the running number less the pairs before.
    counts_G = counts[document_N[full_G]]
    query_P = torch.repeat_interleave(counts_G)
    nth_P = torch.arange(len(query_P), device=device) - (counts_G.cumsum(0) - counts_G)[query_P]
    keys_MK, count_MK = _sparse_keys(sparse_M, first_N[sparse_M], last_N[sparse_M], long_N[sparse_M], sparsity)
    random_blocks = sparsity.num_random_blocks if sparsity.sample_random_blocks else 0
    keys_of_samples = (last_N - first_N)[sparse_M].numpy(), (sparse_M - first_N[sparse_M]).numpy()
    return BlockSparseMask(
        tokens_NR.view(blocks, size),
        is_token.view(blocks, size),
        slot_BT.view_as(segments_BT),
        sparse_M,
        keys_MK,
        count_MK,
        first_N[sparse_M],
        last_N[sparse_M],
        full_G,
        query_P,
        first_N[full_G][query_P] + nth_P,
        random_blocks,
        keys_of_samples if random_blocks else None,
    )


def _sparse_keys(
    sparse_M: Tensor, first_M: Tensor, last_M: Tensor, long_M: Tensor, sparsity: BlockSparsity
) -> tuple[Tensor, Tensor]:
    """(M, K) which blocks each sparse block attends to, and how many times each of them counts.

    In a long document these are the five fixed blocks; a neighbour that is the first or the last block already counts
    there, so it counts 0 times as a neighbour. In a short document they are all of its blocks.
    """
    sampled = sparsity.sample_random_blocks
    first_counts = torch.full_like(first_M, 1 if sampled else 1 + sparsity.num_random_blocks)
    one = torch.ones_like(first_M)
    fixed = torch.stack([first_M, sparse_M - 1, sparse_M, sparse_M + 1, last_M], dim=1)
    before, after = (sparse_M - 1 > first_M).long(), (sparse_M + 1 < last_M).long()
    counts = torch.stack([first_counts, before, one, after, one], dim=1)
    short_M = torch.where(long_M, 0, last_M - first_M + 1)  # blocks of a short document
    columns = max(FIXED_BLOCKS if bool(long_M.any()) else 1, int(short_M.max()) if len(short_M) else 1)
    nth = torch.arange(columns, device=first_M.device)
    every = first_M[:, None] + nth
    spare = max(0, columns - FIXED_BLOCKS)
    fixed, counts = (pad(x, (0, spare))[:, :columns] for x in (fixed, counts))
    count_MK = torch.where(long_M[:, None], counts, (nth < short_M[:, None]).long())
    return torch.where(count_MK > 0, torch.where(long_M[:, None], fixed, every), 0), count_MK


def attend_block_sparse(
    q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: BlockSparseMask, scale: float, softcap: float = 0.0
) -> Tensor:
    """Compute softmax(scale · q·k) v over the blocks that are visible.

    Args:
        q_BTHE: Queries.
        k_BTKE: Keys.
        v_BTKE: Values.
        mask: Made by `block_sparse_mask`, for one layer.
        scale: Factor of the scores.
        softcap: Bound of the scores; 0 for none.

    Returns:
        (B, T, H, E); padding has the result of some token.
    """
    heads, width = q_BTHE.shape[2:]
    if not len(mask.tokens_NR):
        return torch.zeros_like(q_BTHE)
    groups = heads // k_BTKE.size(2)
    if groups > 1:
        k_BTKE, v_BTKE = (x.repeat_interleave(groups, dim=2) for x in (k_BTKE, v_BTKE))
    shape = (*mask.tokens_NR.shape, heads, width)
    q, k, v = (_take(x.flatten(0, 1), mask.tokens_NR).view(shape) for x in (q_BTHE, k_BTKE, v_BTKE))
    empty = ~mask.is_token_NR
    bias_NR = torch.zeros(empty.shape, dtype=q.dtype, device=q.device).masked_fill(empty, float("-inf"))
    found, order = [], []
    if len(mask.sparse_M):
        # log(count): 0 for a block that counts once, -inf for one that does not count, log n for n times
        bias = bias_NR[mask.keys_MK] + mask.count_MK.to(q.dtype).log()[..., None]
        keys, values = (_take(x, mask.keys_MK).view(len(mask.sparse_M), -1, heads, width) for x in (k, v))
        bias = bias.flatten(1)[:, None, None]
        found.append(attend_masked(_take(q, mask.sparse_M), keys, values, bias, scale, softcap))
        order.append(mask.sparse_M)
    if len(mask.full_G):
        pairs = _take(_take(q, mask.full_G), mask.query_P), _take(k, mask.key_P), _take(v, mask.key_P)
        found.append(_attend_pairs(*pairs, bias_NR[mask.key_P], mask.query_P, len(mask.full_G), scale, softcap))
        order.append(mask.full_G)
    out_NRHE = torch.cat(found).index_select(0, torch.cat(order).argsort())
    return _take(out_NRHE.flatten(0, 1), mask.slot_BT).view_as(q_BTHE)


def _attend_pairs(
    q_PRHE: Tensor,
    k_PRHE: Tensor,
    v_PRHE: Tensor,
    bias_PR: Tensor,
    query_P: Tensor,
    count: int,
    scale: float,
    softcap: float,
) -> Tensor:
    """(G, R, H, E) attention of full blocks, each put together from its pairs.

    A softmax over several pairs needs one maximum for all of them: exp(s - max) is summed per pair and then over the
    pairs of the same full block, for the numerator and for the denominator:

        out = Σ_pairs exp(s_pair - max) v_pair  /  Σ_pairs Σ exp(s_pair - max)

    The maximum only keeps exp from overflowing and cancels out, so it needs no gradient.
    """
    scores_PHRS = torch.matmul(q_PRHE.transpose(1, 2) * scale, k_PRHE.permute(0, 2, 3, 1))
    exact = torch.promote_types(scores_PHRS.dtype, torch.float32)
    scores_PHRS = (soft_cap(scores_PHRS, softcap) + bias_PR[:, None, None]).to(exact)
    shape = (count, *scores_PHRS.shape[1:3])
    max_PHR = scores_PHRS.detach().amax(dim=-1)
    index_PHR = query_P[:, None, None].expand_as(max_PHR)
    max_GHR = max_PHR.new_full(shape, float("-inf")).scatter_reduce(0, index_PHR, max_PHR, "amax")
    weights_PHRS = (scores_PHRS - max_GHR.index_select(0, query_P)[..., None]).exp()
    sums_GHR = weights_PHRS.new_zeros(shape).index_add(0, query_P, weights_PHRS.sum(dim=-1))
    parts_PHRE = torch.matmul(weights_PHRS.to(v_PRHE.dtype), v_PRHE.transpose(1, 2)).to(exact)
    total_GHRE = parts_PHRE.new_zeros(*shape, parts_PHRE.size(-1)).index_add(0, query_P, parts_PHRE)
    return (total_GHRE / sums_GHR[..., None]).to(v_PRHE.dtype).transpose(1, 2)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x, flat; the gradient of index_select is accumulated faster than that of `x[index]`."""
    return x.index_select(0, index.flatten())
