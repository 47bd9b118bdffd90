"""Predict some tokens one after another in a random order, each from both its sides (Yang et al. 2019).

    tokens    [CLS] 7 8 9 4 5 6                  predicted: 8 and 5, in the order 5, 8
    input     [CLS] 7 8 9 4 5 6  [MASK] [MASK]   the tokens as they are, then a query for each that is predicted
    position    0   1 2 3 4 5 6    2      5      a query has the position of its token
    rank        0   0 2 0 0 1 0    ∞      ∞      index in the order; 0 for tokens that are not predicted
    reach       0   0 2 0 0 1 0    1      0      each position sees the ranks up to its reach: none sees a query
    labels      -   - - - - - -    8      5      - : no loss

The query for 5 sees all but 5 and 8; the query for 8 sees the 5 as well. So each token is predicted from both sides and
from the tokens predicted before it, in every order, which neither a masked nor a causal model does.

Paper: XLNet: Generalized Autoregressive Pretraining for Language Understanding,
https://arxiv.org/abs/1906.08237. Its two streams of attention are a layout here: the tokens are the content stream, the
queries the query stream, and no layer reads a query but itself. [MASK] is the vector that all queries start from.

Spans of 1 to 5 tokens (n with probability ∝ 1/n) have a context each, of their length over the rate: six times the
length at a rate of one sixth, as in the paper. Lengths are sampled until they add up to the fixed number of targets
(the last is cut), the contexts are laid around a ring of the row's tokens that starts at a random token, and each span
is put anywhere in its context. So every row has the same number of targets, and every token the same probability. The
released code makes contexts of seven times the length and tops up with single tokens; there, too, lengths count tokens
(its loop meant to count words), but spans begin where words do. Left out are the memory of the row before and pairs of
segments.

Requires [CLS], [SEP], [MASK]. Suits an encoder. Never predicted, and so visible to all: special tokens and the first
token of each document in the row, so that every query sees something. Masked language modelling needs no queries, but
hides its targets from each other and shows the model a row full of holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared.measures import PSEUDO_PERPLEXITY, TOKEN_ACCURACY, Measure
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import OPEN, BlankLayout, EncoderRow, InPlaceLayout

SPANS, START, ORDER = range(3)
"""Streams of random numbers: lengths of spans and their offsets in their contexts, start of the ring, and the order."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

_HALF = np.uint64(32)


class Permutation(Objective):
    """Permutation language modelling: a row holds tokens and, after them, a query for each that is predicted.

    Args:
        rate: predicted tokens as a share of the row's tokens.
        longest_span: most tokens of a span; two spans may meet.
    """

    name: ClassVar[str] = "permutation"
    title: ClassVar[str] = "Permutation language modelling"
    paper: ClassVar[str] = "Yang et al. 2019, https://arxiv.org/abs/1906.08237"
    summary: ClassVar[str] = (
        "Some tokens are predicted one after another in a random order, each from both sides and from those "
        "that came before it in that order."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (TOKEN_ACCURACY, PSEUDO_PERPLEXITY)

    rate: float = Field(default=1 / 6, gt=0, le=0.5, description="share of the tokens that are predicted")
    longest_span: int = Field(default=5, ge=1, le=100, description="most tokens predicted side by side")

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns [CLS] before every row and [SEP] after every document."""
        return Frame(end=vocabulary.sep, lead=vocabulary.cls)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of the most tokens that fit `length` with their queries: 439 and 73 of 512 at a rate of 1/6.

        Raises:
            UserError: the length is below 3.
        """
        if length < 3:
            raise UserError(
                f"Rows of {length} tokens have no room for [CLS], a token and its query.",
                "Give a length of at least 3.",
            )
        tokens = length - 1
        while tokens + int(self.num_targets(tokens)) > length:
            tokens -= 1
        return [Variant("main", raw=tokens - 1, length=tokens + int(self.num_targets(tokens)))]

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """Each open place has a query behind the text, from left to right."""
        return PermutationLayout(vocabulary, self.frame(vocabulary))

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, W + K) tokens and queries of (B, W) tokens; a row with fewer targets than K ends in padding."""
        tokens, segments, positions = (rows.matrix(a) for a in (rows.tokens, rows.segment_ids, rows.position_ids))
        width, queries = rows.width, int(self.num_targets(rows.width))
        free = ~vocabulary.is_special.take(tokens) & (positions != 0) & (segments >= 0)
        counts = np.minimum(self.num_targets(np.count_nonzero(segments >= 0, axis=1)), np.count_nonzero(free, axis=1))
        targets = self._choose(free, counts, queries, rng)
        used = np.arange(queries) < counts[:, None]
        ranks = rng.order(ORDER, queries, queries, exclude=~used)[used] + 1

        # Flat positions in rows of width W become flat positions in rows of width W + K: row b shifts by b · K.
        rank = np.zeros((len(rows), width + queries), dtype=np.int32)
        rank.reshape(-1)[targets + targets // width * queries] = ranks
        reach = rank.copy()
        rank[:, width:][used] = queries + 1
        reach[:, width:][used] = ranks - 1

        def extended(values: I32, fill: int, at_queries: I32 | int) -> I32:
            out = np.full(rank.shape, fill, dtype=np.int32)
            out[:, :width] = values
            out[:, width:][used] = at_queries
            return out

        labels = np.full(rank.shape, IGNORE, dtype=np.int32)
        labels[:, width:][used] = rows.tokens[targets]
        return Batch(
            input_ids=extended(tokens, vocabulary.pad, vocabulary.mask),
            labels=labels,
            segment_ids=extended(segments, -1, rows.segment_ids[targets]),
            position_ids=extended(positions, 0, rows.position_ids[targets]),
            attention="ranked",
            rank=rank,
            reach=reach,
            example_ids=rows.example_ids,
        )

    def num_targets(self, tokens: int | I64) -> I64:
        """Returns how many of a row's tokens, [CLS] included, are predicted: at least one."""
        return np.maximum(np.rint(self.rate * np.asarray(tokens)), 1).astype(np.int64)

    def _choose(self, free: NDArray[np.bool_], counts: I64, most: int, rng: CounterRNG) -> I64:
        """Returns the flat positions of the targets in ascending order, counts[b] (at most `most`) in row b.

        Spans are placed among the free tokens 0 … n - 1 of each row, turned by a random number of tokens: with n = 10,
        spans at 2 and 7 of lengths 2 and 1 and a turn of 4 give tokens 6, 7 and 11 - 10 = 1.
        """
        sizes = np.count_nonzero(free, axis=1)
        starts, lengths = (values.reshape(-1) for values in self._spans(sizes, counts, most, rng))
        turn = ((rng.bits(START, 1)[:, 0] >> _HALF) * sizes.astype(np.uint64) >> _HALF).astype(np.int64)
        nth = np.arange(int(counts.sum())) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        nth += np.repeat(turn, counts)
        row_sizes = np.repeat(sizes, counts)
        nth = np.where(nth >= row_sizes, nth - row_sizes, nth)  # around the ring
        chosen = np.zeros(free.size, dtype=bool)
        chosen[np.flatnonzero(free)[nth + np.repeat(np.cumsum(sizes) - sizes, counts)]] = True
        return np.flatnonzero(chosen)

    def _spans(self, sizes: I64, counts: I64, most: int, rng: CounterRNG) -> tuple[I64, I64]:
        """Returns (B, most) starts and lengths of spans that do not overlap; unused ones have length 0.

        For 10 tokens, 3 to cover, and sampled lengths 2, 4, …:

            ends       2, 3, 3        running sum, at most 3
            lengths    2, 1, 0
            edges      6, 10, 10      contexts: 10 tokens in the proportion of the ends, 2 : 3
            spare      4, 3, 0        context less span; the span begins at a random one of spare + 1 offsets

        Args:
            sizes: (B,) free tokens of each row.
            counts: (B,) how many of them to cover.
            most: largest count.
            rng: one stream per row.
        """
        draws = rng.bits(SPANS, most)
        law = np.cumsum(1 / np.arange(1, self.longest_span + 1))
        limits = np.floor(law[:-1] / law[-1] * 2.0**32).astype(np.uint64)
        lengths = np.searchsorted(limits, draws >> _HALF, side="right") + 1
        ends = np.minimum(np.cumsum(lengths, axis=1), counts[:, None])
        lengths = np.diff(ends, axis=1, prepend=0)
        edges = ends * sizes[:, None] // np.maximum(counts, 1)[:, None]
        spare = np.diff(edges, axis=1, prepend=0) - lengths
        chance = (draws & np.uint64(0xFFFFFFFF)) * (spare + 1).astype(np.uint64) >> _HALF
        return edges - spare - lengths + chance.astype(np.int64), lengths


class PermutationLayout(InPlaceLayout):
    """The first open place has a query behind the text, which sees both sides and the places that are filled.

        [CLS] The      sat on the mat . [SEP]   [MASK]      position of the query: 2
        position   0   1        3  4  5   6  7   8        2

    Open places and further blanks hold no token but leave a gap in the positions: in training, too, the tokens of later
    ranks are invisible. Filled places have ranks in their order, as the targets of a row: the text does not see them.

    Args:
        frame: the special tokens around a row and a document.
    """

    left_to_right: ClassVar[bool] = True

    def __init__(self, vocabulary: Vocabulary, frame: Frame) -> None:
        super().__init__(vocabulary)
        self.frame = frame

    def row(self, blank: Blank, candidate: Sequence[int]) -> EncoderRow:
        known = [token for token in candidate if token != OPEN]
        before = [*([] if self.frame.lead is None else [self.frame.lead]), *blank.left]
        # (token, position, rank, reach) of each column
        columns = [(token, position, 0, 0) for position, token in enumerate(before)]
        columns += [(token, len(before) + nth, nth + 1, nth + 1) for nth, token in enumerate(known)]
        position = len(before) + len(candidate)
        for nth, piece in enumerate([blank.right, *blank.later]):
            position += nth > 0  # the gap of a further blank
            columns += [(token, position + place, 0, 0) for place, token in enumerate(piece)]
            position += len(piece)
        if self.frame.end is not None and blank.ends_document:
            columns.append((self.frame.end, position, 0, 0))
        columns.append((self.vocabulary.mask, len(before) + len(known), len(candidate) + 1, len(known)))
        tokens, positions, rank, reach = zip(*columns, strict=True)
        return EncoderRow(tokens, {len(known): len(tokens) - 1}, positions, rank, reach)
