"""Rows of source–target pairs, packed without a loop over pairs or rows.

    pairs          [7 8 | 3]   [5 | 4 4 2]         with </s> after each text
    row            7 8 </s> 3 </s>   5 </s> 4 4 2 </s>   [PAD]
    token types    0 0   0  1   1    0   0  1 1 1   1      0
    segments       0 0   0  0   0    1   1  1 1 1   1     -1
    positions      0 1   2  3   4    0   1  2 3 4   5      0

Packing is next-fit: a row takes pairs in a shuffled order while sources and targets still fit, and the first pair that
does not fit begins the next row. With A and B the summed lengths of the sources and targets before each pair, a row
that begins at pair i ends before the last j with A[j] - A[i] and B[j] - B[i] within their capacities: one binary
search for every i. The actual rows follow from pair 0 by pointer doubling: k rounds find the first 2**k rows.

An epoch shuffles and packs by its number alone. The seed only decides the order of the rows, so that one pass in
order is the same for every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.counter_rng import mix, permute
from pretextlm.data.epochs import Epochs
from pretextlm.data.sentence_pair_index import reachable, truncated
from pretextlm.data.store import Split
from pretextlm.errors import UserError

I64 = NDArray[np.int64]

SHUFFLE, PASS = 0x7061636B, 0x70617373
"""Keys of the order of an epoch's pairs, and of the order in which the pairs of a source are used."""


@dataclass(frozen=True)
class PairFrame:
    """Special tokens around the texts of a pair; None for no token."""

    lead: int | None = None
    middle: int | None = None
    end: int | None = None

    @property
    def source(self) -> int:
        """Returns the number of special tokens counted as the source's: before it and between the texts."""
        return (self.lead is not None) + (self.middle is not None)

    @property
    def target(self) -> int:
        return int(self.end is not None)


@dataclass(frozen=True)
class RowCapacity:
    """Capacity of a row in tokens, special tokens included.

    Attributes:
        source, target: of all its sources, of all its targets; 0: only the total is limited.
        total: of both together, which is the row's width; 0: source + target.
    """

    source: int = 0
    target: int = 0
    total: int = 0

    @property
    def width(self) -> int:
        return self.total or self.source + self.target


@dataclass(frozen=True)
class MixingRates:
    """Number of pairs of each source per epoch (Raffel et al. 2020, section 3.5.2).

    A source of n pairs counts as min(n, limit), and sources are mixed in proportion to the temperature-th root of that.
    An epoch has Σ min(n, limit) pairs in total. Pairs that an epoch does not use come first in the next one; if an
    epoch uses a source more than once, all its pairs occur equally often, up to one.

    Attributes:
        limit: 0 for none.
        temperature: 1 for proportional mixing; higher values make the sources' shares more equal.
    """

    limit: int = 0
    temperature: float = 1.0

    def quotas(self, counts: I64) -> I64:
        """Returns (M,) the pairs of each source in an epoch, from the number of pairs each has (M,)."""
        limited: I64 = np.minimum(counts, self.limit) if self.limit else counts
        if self.temperature == 1:
            return limited
        rates = limited ** (1 / self.temperature)
        exact = limited.sum() * rates / rates.sum()
        rows: I64 = np.maximum(exact.astype(np.int64), counts > 0)
        short = max(0, int(limited.sum() - rows.sum()))
        rows[np.argsort(rows - exact, kind="stable")[:short]] += 1
        return rows


@dataclass(frozen=True)
class Packing:
    """Rows of one epoch.

    Attributes:
        order: (E,) pair number at each position.
        first: (R+1,) position of each row's first pair, and E.
    """

    order: NDArray[np.integer]
    first: I64

    def __len__(self) -> int:
        return len(self.first) - 1


class PackedPairs:
    """Reads the pairs of a split, packed into rows of one width. Threads may share one reader.

    A pair longer than a row is truncated: each text to its own capacity or, if only the total is limited, the longer
        text
    until both fit.

    Args:
        split: documents that are not pairs are skipped.
        frame, capacity: special tokens around the texts, and the capacity of a row.
        pad: id of padding.
        mixing: number of pairs of each source per epoch.
        copies: number of epochs after which the rows repeat; 0: never.
        by_source: every epoch has all pairs, and a row those of one source, in order.

    Attributes:
        num_pairs: in the split.
        cut: number of pairs longer than a row.
        unusable: number of documents skipped because one of their texts has no token.

    Raises:
        UserError: the split has no pairs.
    """

    def __init__(
        self,
        split: Split,
        frame: PairFrame,
        capacity: RowCapacity,
        pad: int,
        mixing: MixingRates | None = None,
        copies: int = 0,
        by_source: bool = False,
    ) -> None:
        self.split, self.frame, self.capacity, self.pad, self._one_source = split, frame, capacity, pad, by_source
        self._document, self._begin, self._middle, end, self.unusable = _pairs(split)
        self._source_of = split.document_sources[self._document].astype(np.int64)
        self.num_pairs = len(self._begin)
        source, target = self._middle - self._begin, end - self._middle
        kept_source, kept_target = self._kept(source, target)
        self.cut = int(np.count_nonzero((kept_source < source) | (kept_target < target)))
        self._source, self._target = kept_source.astype(np.int32), kept_target.astype(np.int32)
        order = np.argsort(self._source_of, kind="stable")
        counts = np.bincount(self._source_of)
        self._by_source = np.split(order.astype(np.int32 if len(order) < 2**31 else np.int64), np.cumsum(counts)[:-1])
        self._quotas = (mixing or MixingRates()).quotas(counts.astype(np.int64))
        self._epochs = Epochs(self._pack, copies, seeded=False)

    @cached_property
    def rows_per_pass(self) -> int:
        """Returns the rows of epoch 0."""
        return len(self.packing(0))

    @cached_property
    def tokens_per_row(self) -> float:
        """Returns the mean number of text tokens of a row of epoch 0."""
        order = self.packing(0).order
        text = self._source[order].sum(dtype=np.int64) + self._target[order].sum(dtype=np.int64)
        return float(text / self.rows_per_pass)

    @cached_property
    def fill(self) -> tuple[float, float]:
        """Returns the used shares of the source and target capacity in epoch 0; of the total if only that is
        limited.
        """
        order, rows = self.packing(0).order, self.rows_per_pass
        source = self._source[order].sum(dtype=np.int64) + self.frame.source * len(order)
        target = self._target[order].sum(dtype=np.int64) + self.frame.target * len(order)
        width = self.capacity.width
        return (
            float(source / (rows * (self.capacity.source or width))),
            float(target / (rows * (self.capacity.target or width))),
        )

    def packing(self, epoch: int) -> Packing:
        """Returns the rows of an epoch, computed on first use."""
        return self._epochs.get(0, epoch)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Returns (row numbers, epochs) at positions `ordinals` (B,) of training; each epoch is permuted by its own
        key.
        """
        return self._epochs.shuffled(ordinals, seed)

    def groups(self, numbers: I64) -> list[I64]:
        """Returns one group, since all rows have one shape."""
        return [np.arange(len(numbers))] if len(numbers) else []

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        """Read rows by number.

        Args:
            numbers, epochs: (B,) from `shuffled`, in any order.
            seed: has no effect: the content of a row depends on its number and epoch.
            pad: has no effect: rows are always padded.

        Returns:
            The rows.
        """
        numbers = np.array(numbers, dtype=np.int64)
        pairs, counts = self._pairs_of(numbers, np.asarray(epochs, dtype=np.int64))
        width, opens = self.capacity.width, np.cumsum(counts) - counts
        lengths = np.empty((len(pairs), 2), dtype=np.int64)
        lengths[:, 0] = self._source[pairs]
        lengths[:, 1] = self._target[pairs]
        lengths += (self.frame.source, self.frame.target)
        # Texts in order s0 t0 s1 t1 …: text k ends at ends[k] in the unpadded output. Adding the padding of all rows
        # before its own gives the place in the padded output.
        ends = np.cumsum(lengths.reshape(-1))
        used = np.diff(ends[2 * (opens + counts) - 1], prepend=0)
        slack = width - used
        starts = (ends - lengths.reshape(-1)).reshape(-1, 2) + np.repeat(np.cumsum(slack) - slack, counts)[:, None]
        runs = lengths.copy()
        runs[opens + counts - 1, 1] += slack  # the last text of a row runs on through its padding
        tokens, word_starts = self._gather(pairs, starts, runs)
        whole = runs.sum(axis=1)
        segment = np.arange(len(pairs), dtype=np.int32) - np.repeat(opens.astype(np.int32), counts)
        segments = np.repeat(segment, whole)
        positions = np.arange(len(tokens), dtype=np.int32)
        positions -= np.repeat(starts[:, 0].astype(np.int32), whole)
        types = np.repeat(np.tile(np.array([0, 1], np.int32), len(pairs)), runs.reshape(-1))
        padding = (np.arange(width) >= used[:, None]).reshape(-1)
        for array, value in ((tokens, self.pad), (segments, -1), (positions, 0), (types, 0), (word_starts, False)):
            np.copyto(array, value, where=padding)
        return Rows(
            tokens=tokens,
            offsets=np.arange(len(numbers) + 1) * width,
            segment_ids=segments,
            position_ids=positions,
            word_starts=word_starts,
            example_ids=numbers,
            token_type_ids=types,
        )

    def documents(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) the document that is the first pair of each row of epoch 0; a pair is in exactly one row."""
        return self._document[self._first_pairs(numbers)]

    def sources(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) the sources of these pairs."""
        return self._source_of[self._first_pairs(numbers)]

    def one_source_a_row(self) -> PackedPairs:
        """Returns a reader of the same pairs that reads each once and does not mix sources in a row."""
        return PackedPairs(self.split, self.frame, self.capacity, self.pad, by_source=True)

    def _first_pairs(self, numbers: I64) -> I64:
        packing = self.packing(0)
        found: I64 = packing.order[packing.first[numbers]].astype(np.int64)
        return found

    def _gather(self, pairs: I64, starts: I64, runs: I64) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Returns the tokens and word starts of all rows, special tokens included; padding holds arbitrary tokens."""
        frame = self.frame
        before = int(frame.lead is not None)
        shifts = -starts
        shifts[:, 0] += self._begin[pairs] - before
        shifts[:, 1] += self._middle[pairs]
        # Within a text the token offset is the output index plus a constant shift (text begin - output begin).
        source = np.repeat(shifts.reshape(-1), runs.reshape(-1))
        source += np.arange(len(source))
        np.clip(source, 0, self.split.num_tokens - 1, out=source)
        tokens = self.split.tokens.take(source).astype(np.int32)
        word_starts = self.split.word_starts(source)
        places = (starts[:, 0], starts[:, 1] - 1, starts[:, 1] + self._target[pairs])
        for token, at in zip((frame.lead, frame.middle, frame.end), places, strict=True):
            if token is not None:
                tokens[at], word_starts[at] = token, True
        return tokens, word_starts

    def _pairs_of(self, numbers: I64, epochs: I64) -> tuple[I64, I64]:
        """Returns (pair numbers of all rows, row by row; number of pairs of each row (B,))."""
        begins, counts = np.empty_like(numbers), np.empty_like(numbers)
        packings = {epoch: self.packing(epoch) for epoch in np.unique(epochs).tolist()}
        for epoch, packing in packings.items():
            inside = epochs == epoch
            begins[inside] = packing.first[numbers[inside]]
            counts[inside] = packing.first[numbers[inside] + 1] - begins[inside]
        opens = np.cumsum(counts) - counts
        places = np.repeat(begins - opens, counts) + np.arange(int(counts.sum()))
        pairs = np.empty_like(places)
        of = np.repeat(epochs, counts)
        for epoch, packing in packings.items():
            inside = of == epoch
            pairs[inside] = packing.order[places[inside]]
        return pairs, counts

    def _kept(self, source: I64, target: I64) -> tuple[I64, I64]:
        """Returns the lengths of the texts after truncation."""
        if self.capacity.total:
            return truncated(source, target, self.capacity.total - self.frame.source - self.frame.target)
        return (
            np.minimum(source, self.capacity.source - self.frame.source),
            np.minimum(target, self.capacity.target - self.frame.target),
        )

    def _picked(self, epoch: int) -> NDArray[np.integer]:
        """Returns (E,) the pairs of an epoch, source by source."""
        picked = []
        for source, (pairs, quota) in enumerate(zip(self._by_source, self._quotas.tolist(), strict=True)):
            if quota == len(pairs):
                picked.append(pairs)
                continue
            # An epoch takes the next `quota` pairs of an endless sequence of permutations of the source.
            passes, places = np.divmod(np.arange(epoch * quota, (epoch + 1) * quota), len(pairs))
            seeds = mix(passes.astype(np.uint64) ^ np.uint64(PASS)) >> np.uint64(1)
            picked.append(pairs[permute(places, len(pairs), seeds.astype(np.int64), source)])
        return np.concatenate(picked)

    def _pack(self, seed: int, epoch: int) -> Packing:
        if self._one_source:
            order: NDArray[np.integer] = np.concatenate(self._by_source)
        else:
            picked = self._picked(epoch)
            order = picked[permute(np.arange(len(picked)), len(picked), SHUFFLE, epoch)]
        source = _sums(self._source[order] + self.frame.source)
        target = _sums(self._target[order] + self.frame.target)
        capacity = self.capacity
        bounds = (
            [(source + target, capacity.total)]
            if capacity.total
            else [(source, capacity.source), (target, capacity.target)]
        )
        # onward[i] is the pair that begins the next row if a row begins at pair i: the last j whose summed lengths
        # stay within the capacity. Lengths 3 3 5 2 and capacity 6 give onward = [2, 2, 3, 4] and rows at 0, 2, 3.
        onward = np.full(len(order), len(order))
        for sums, most in bounds:
            np.minimum(onward, np.searchsorted(sums, sums[:-1] + most, side="right") - 1, out=onward)
        if self._one_source:  # the next pair of another source begins a row
            of = self._source_of[order]
            np.minimum(onward, np.searchsorted(of, of, side="right"), out=onward)
        return Packing(order, np.append(reachable(onward, np.zeros(1, np.int64)), len(order)))


def _sums(lengths: NDArray[np.int32]) -> I64:
    """Returns (E+1,) the exclusive cumulative sum of the lengths, with the total at the end."""
    sums = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=sums[1:])
    return sums


def _pairs(split: Split) -> tuple[I64, I64, I64, I64, int]:
    """Returns (document, begin, middle, end) of every pair with both texts, and the number of documents without."""
    documents, starts = split.documents.view(np.int64), split.sentences.view(np.int64)
    chosen = np.flatnonzero(split.pairs)
    begin, end = documents[chosen], documents[chosen + 1]
    first, after = np.searchsorted(starts, begin), np.searchsorted(starts, end)
    whole = after - first == 2
    if not whole.any():
        raise UserError(
            "The split holds no pairs of a source and a target.",
            "Prepare a store with some: pretextlm data prepare 'FILE?source=FIELD&target=FIELD' --out DIR",
        )
    middle = starts[first[whole] + 1]
    return chosen[whole], begin[whole], middle, end[whole], int(np.count_nonzero(~whole))
