"""Block-sparse attention in time and memory that grow linearly with the row.

A document is cut into blocks of R tokens. Its first and its last block see all of it; the others see themselves, their
neighbours, the first and the last block, and r more (BigBird, Zaheer et al. 2020, https://arxiv.org/abs/2007.14062):

    block 0    ■ ■ ■ ■ ■ ■ ■ ■
    block 1    ■ ■ ■ · · ? · ■      ? drawn at random, where that is asked for
    block 2    ■ ■ ■ ■ · · ? ■
    block 3    ■ ? ■ ■ ■ · · ■
    …
    block 7    ■ ■ ■ ■ ■ ■ ■ ■

Blocks are counted from each document's beginning, so that it is read alike wherever it is packed or padded; one of at
most (5 + 2r)·R tokens is read as a whole.

Random blocks are drawn once for each layer, the same for all heads, in training and in use. Where they are not drawn,
the first block counts 1 + r times in the softmax instead: that is what transformers computes of a BigBird outside of
training, whose random blocks are then all the first one.

Axis letters: B rows, T positions, N blocks of all rows, R tokens of a block, M blocks that see few, K blocks that one
of them sees, G blocks that see their whole document, P pairs of such a block and one that it sees, H heads, E width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from pretextlm.counter_rng import CounterRNG
from pretextlm.model.biased_attention import attend_blocks, capped

BESIDE = 5
"""Blocks that one sees which is neither first nor last, drawn ones apart."""


class Sparsity(NamedTuple):
    """size: R; random: r; draw: the random blocks are drawn, else the first block counts so many times more."""

    size: int
    random: int = 0
    draw: bool = False

    @property
    def whole(self) -> int:
        """Tokens up to which a document is read as a whole."""
        return (BESIDE + 2 * self.random) * self.size


@dataclass(frozen=True)
class Sparse:
    """A block-sparse visibility, made once per batch.

    Attributes:
        tokens_NR: flat position in the batch of each token of each block; 0 where there is none.
        held_NR: which of these places hold a token.
        place_BT: where each position lies among them; 0 for padding.
        narrow_M: blocks that see few: those of short documents, and those between the ends of long ones.
        seen_MK, weight_MK: which blocks these see, and how many times each counts; 0: not at all.
        first_M, last_M: ends of the documents they are in.
        wide_G: ends of long documents.
        pair_P, seen_P: number of one of them, and a block that it sees.
        draw: random blocks that are yet to be drawn.
    """

    tokens_NR: Tensor
    held_NR: Tensor
    place_BT: Tensor
    narrow_M: Tensor
    seen_MK: Tensor
    weight_MK: Tensor
    first_M: Tensor
    last_M: Tensor
    wide_G: Tensor
    pair_P: Tensor
    seen_P: Tensor
    draw: int = 0

    def of_layer(self, index: int) -> Sparse:
        """With the random blocks of a layer, each drawn from one of r equal parts of those that are not seen anyway."""
        if not self.draw:
            return self
        low_M = torch.maximum(self.narrow_M - 1, self.first_M + 1)
        beside_M = torch.minimum(self.narrow_M + 1, self.last_M - 1) - low_M + 1
        length_M = self.last_M - self.first_M
        long_M = length_M >= BESIDE + 2 * self.draw
        free_M = torch.where(long_M, length_M - 1 - beside_M, 0)
        of_block = length_M.cpu().numpy(), (self.narrow_M - self.first_M).cpu().numpy()
        chance_Mr = torch.from_numpy(CounterRNG.of(index, *of_block).uniform(0, self.draw)).to(low_M.device)
        bounds = torch.arange(self.draw + 1, device=low_M.device) * free_M[:, None] // self.draw
        pick_Mr = bounds[:, :-1] + (chance_Mr * (bounds[:, 1:] - bounds[:, :-1])).long()
        drawn_Mr = self.first_M[:, None] + 1 + pick_Mr
        drawn_Mr = drawn_Mr + (drawn_Mr >= low_M[:, None]) * beside_M[:, None]
        return dataclasses.replace(
            self,
            seen_MK=torch.cat([self.seen_MK, torch.where(long_M[:, None], drawn_Mr, 0)], dim=1),
            weight_MK=torch.cat([self.weight_MK, long_M[:, None].expand_as(drawn_Mr)], dim=1),
            draw=0,
        )


def sparse_sight(segments_BT: Tensor, sparsity: Sparsity) -> Sparse:
    """The visibility of rows of documents, each in one piece; segments are -1 for padding."""
    size, device = sparsity.size, segments_BT.device
    begins = torch.ones_like(segments_BT, dtype=torch.bool)
    begins[:, 1:] = segments_BT[:, 1:] != segments_BT[:, :-1]
    real = (segments_BT >= 0).flatten()
    begins &= segments_BT >= 0
    tokens = real.nonzero()[:, 0]
    document = begins.flatten().cumsum(0)[tokens] - 1
    lengths = torch.bincount(document)
    counts = (lengths + size - 1) // size
    starts, ends = lengths.cumsum(0) - lengths, counts.cumsum(0)
    places = (ends - counts)[document] * size + torch.arange(len(tokens), device=device) - starts[document]
    blocks = int(ends[-1]) if len(ends) else 0
    held = torch.zeros(blocks * size, dtype=torch.bool, device=device)
    held[places] = True
    tokens_NR = torch.zeros(blocks * size, dtype=torch.int64, device=device)
    tokens_NR[places] = tokens
    place_BT = torch.zeros(segments_BT.numel(), dtype=torch.int64, device=device)
    place_BT[tokens] = places

    number = torch.arange(blocks, device=device)
    of_N = torch.repeat_interleave(counts)
    first_N, last_N = (ends - counts)[of_N], ends[of_N] - 1
    long_N = lengths[of_N] > sparsity.whole
    wide_N = long_N & ((number == first_N) | (number == last_N))
    wide_G, narrow_M = wide_N.nonzero()[:, 0], (~wide_N).nonzero()[:, 0]
    many_G = counts[of_N[wide_G]]
    pair_P = torch.repeat_interleave(many_G)
    nth_P = torch.arange(len(pair_P), device=device) - (many_G.cumsum(0) - many_G)[pair_P]
    seen_MK, weight_MK = _seen(narrow_M, first_N[narrow_M], last_N[narrow_M], long_N[narrow_M], sparsity)
    return Sparse(
        tokens_NR.view(blocks, size),
        held.view(blocks, size),
        place_BT.view_as(segments_BT),
        narrow_M,
        seen_MK,
        weight_MK,
        first_N[narrow_M],
        last_N[narrow_M],
        wide_G,
        pair_P,
        first_N[wide_G][pair_P] + nth_P,
        sparsity.random if sparsity.draw else 0,
    )


def _seen(
    narrow_M: Tensor, first_M: Tensor, last_M: Tensor, long_M: Tensor, sparsity: Sparsity
) -> tuple[Tensor, Tensor]:
    """(M, K) which blocks each sees and how many times each of them counts."""
    often = torch.full_like(first_M, 1 if sparsity.draw else 1 + sparsity.random)
    here = torch.ones_like(first_M)
    few = torch.stack([first_M, narrow_M - 1, narrow_M, narrow_M + 1, last_M], dim=1)
    times = torch.stack([often, (narrow_M - 1 > first_M).long(), here, (narrow_M + 1 < last_M).long(), here], dim=1)
    most = torch.where(long_M, 0, last_M - first_M + 1)
    columns = max(BESIDE if bool(long_M.any()) else 1, int(most.max()) if len(most) else 1)
    nth = torch.arange(columns, device=first_M.device)
    whole = first_M[:, None] + nth
    spare = max(0, columns - BESIDE)
    few, times = (pad(x, (0, spare))[:, :columns] for x in (few, times))
    weight_MK = torch.where(long_M[:, None], times, (nth < most[:, None]).long())
    return torch.where(weight_MK > 0, torch.where(long_M[:, None], few, whole), 0), weight_MK


def attend_sparse(
    q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, sight: Sparse, scale: float, softcap: float = 0.0
) -> Tensor:
    """softmax(scale · q·k) v over the blocks that are seen, (B, T, H, E); padding has that of some token.

    Args:
        softcap: scores are bounded to ± that by tanh; 0: not bounded.
    """
    heads, width = q_BTHE.shape[2:]
    if not len(sight.tokens_NR):
        return torch.zeros_like(q_BTHE)
    groups = heads // k_BTKE.size(2)
    if groups > 1:
        k_BTKE, v_BTKE = (x.repeat_interleave(groups, dim=2) for x in (k_BTKE, v_BTKE))
    shape = (*sight.tokens_NR.shape, heads, width)
    q, k, v = (_at(x.flatten(0, 1), sight.tokens_NR).view(shape) for x in (q_BTHE, k_BTKE, v_BTKE))
    held = torch.zeros(sight.held_NR.shape, dtype=q.dtype, device=q.device).masked_fill(~sight.held_NR, float("-inf"))
    found, order = [], []
    if len(sight.narrow_M):
        bias = held[sight.seen_MK] + sight.weight_MK.to(q.dtype).log()[..., None]
        keys, values = (_at(x, sight.seen_MK).view(len(sight.narrow_M), -1, heads, width) for x in (k, v))
        found.append(
            attend_blocks(_at(q, sight.narrow_M), keys, values, bias.flatten(1)[:, None, None], scale, softcap)
        )
        order.append(sight.narrow_M)
    if len(sight.wide_G):
        pairs = _at(_at(q, sight.wide_G), sight.pair_P), _at(k, sight.seen_P), _at(v, sight.seen_P)
        found.append(_attend_pairs(*pairs, held[sight.seen_P], sight.pair_P, len(sight.wide_G), scale, softcap))
        order.append(sight.wide_G)
    out_NRHE = torch.cat(found).index_select(0, torch.cat(order).argsort())
    return _at(out_NRHE.flatten(0, 1), sight.place_BT).view_as(q_BTHE)


def _attend_pairs(
    q_PRHE: Tensor,
    k_PRHE: Tensor,
    v_PRHE: Tensor,
    bias_PR: Tensor,
    pair_P: Tensor,
    count: int,
    scale: float,
    softcap: float,
) -> Tensor:
    """(G, R, H, E) attention of blocks over as many others as each has pairs, put together from the pairs."""
    scores_PHRS = torch.matmul(q_PRHE.transpose(1, 2) * scale, k_PRHE.permute(0, 2, 3, 1))
    exact = torch.promote_types(scores_PHRS.dtype, torch.float32)
    scores_PHRS = (capped(scores_PHRS, softcap) + bias_PR[:, None, None]).to(exact)
    shape = (count, *scores_PHRS.shape[1:3])
    top_PHR = scores_PHRS.detach().amax(dim=-1)
    of_PHR = pair_P[:, None, None].expand_as(top_PHR)
    top_GHR = top_PHR.new_full(shape, float("-inf")).scatter_reduce(0, of_PHR, top_PHR, "amax")
    weights_PHRS = (scores_PHRS - top_GHR.index_select(0, pair_P)[..., None]).exp()
    sums_GHR = weights_PHRS.new_zeros(shape).index_add(0, pair_P, weights_PHRS.sum(dim=-1))
    parts_PHRE = torch.matmul(weights_PHRS.to(v_PRHE.dtype), v_PRHE.transpose(1, 2)).to(exact)
    total_GHRE = parts_PHRE.new_zeros(*shape, parts_PHRE.size(-1)).index_add(0, pair_P, parts_PHRE)
    return (total_GHRE / sums_GHR[..., None]).to(v_PRHE.dtype).transpose(1, 2)


def _at(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x, whose gradient is added up faster than that of `x[index]`."""
    return x.index_select(0, index.flatten())
