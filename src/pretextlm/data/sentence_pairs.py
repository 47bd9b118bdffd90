"""Rows of two segments in BERT's format: [CLS] A [SEP] B [SEP], then padding.

    row           [CLS] 7 8 9 [SEP] 3 2 1 1 [SEP] [PAD] [PAD]
    token types     0   0 0 0   0   1 1 1 1   1     0     0
    segments        0   0 0 0   0   0 0 0 0   0    -1    -1
    label of the row: the relation of B to A

The pairs of sentences differ from epoch to epoch (data/sentence_pair_index.py), and so does the number of rows: row
numbers count from 0 in every epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Rows
from pretextlm.data.epochs import Epochs
from pretextlm.data.sentence_pair_index import Kind, PairIndex, Pairs
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary

I64 = NDArray[np.int64]

SPECIALS = 3
"""[CLS] and two [SEP]."""
LEAST_LENGTH = SPECIALS + 2

_CLS, _A, _SEP_A, _B, _SEP_B, _PAD = range(6)


class PairReader:
    """Reads a split as rows of sentence pairs. Threads may share one reader.

    The pairs of an epoch and their order are computed when its first row is read; they take 36 bytes per row.

    Args:
        split: the text.
        vocabulary: for [CLS], [SEP] and [PAD].
        length: of every row, at least 5.
        kinds: relations of B to A, with the rows' labels.
        short: share of the documents whose rows are of random length, so that shorter rows occur too.
        copies: number of epochs after which the pairs repeat; 0: never.

    Raises:
        UserError: the split has no text, or no pairs can be made from it.
    """

    def __init__(
        self,
        split: Split,
        vocabulary: Vocabulary,
        length: int,
        kinds: Sequence[Kind],
        short: float = 0.1,
        copies: int = 0,
    ) -> None:
        assert length >= LEAST_LENGTH, "a row of two parts has at least 5 tokens"
        self.split, self.vocabulary, self.length = split, vocabulary, length
        self.index = PairIndex(split, length - SPECIALS, kinds, short)
        self._epochs = Epochs(self.index.pairs, copies)

    @cached_property
    def _typical(self) -> Pairs:
        """Returns the first epoch under seed 0: other epochs and seeds have about as many pairs of about the same
        size.
        """
        return self.pairs(0, 0)

    @property
    def rows_per_pass(self) -> int:
        """Returns the rows of a typical epoch; a number past the end of an epoch reads as a row of padding."""
        return len(self._typical)

    @cached_property
    def tokens_per_row(self) -> float:
        """Returns the mean number of text tokens of a row, those of random partners included."""
        pairs = self._typical
        return float(pairs.a_length.mean(dtype=np.float64) + pairs.b_length.mean(dtype=np.float64))

    def pairs(self, seed: int, epoch: int) -> Pairs:
        """Returns the pairs of an epoch, by row number."""
        return self._epochs.get(seed, epoch)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Returns (row numbers, epochs) at positions `ordinals` (B,) of training; each epoch is permuted by its own
        key.
        """
        return self._epochs.shuffled(ordinals, seed)

    def groups(self, numbers: I64) -> list[I64]:
        """Returns one group, since all rows have one shape."""
        return [np.arange(len(numbers))] if len(numbers) else []

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        """Read rows by number; a row past the end of its epoch is padding.

        Args:
            numbers, epochs: (B,) from `shuffled`, in any order.
            seed: of the pairs.
            pad: has no effect: rows are always padded with the vocabulary's [PAD].

        Returns:
            The rows.
        """
        numbers, epochs = np.array(numbers, dtype=np.int64), np.asarray(epochs, dtype=np.int64)
        some = self._some(numbers, epochs, seed)
        there = some.a_length > 0
        lengths = np.zeros((len(numbers), 6), dtype=np.int64)
        lengths[:, [_CLS, _SEP_A, _SEP_B]] = there[:, None]
        lengths[:, _A], lengths[:, _B] = some.a_length, some.b_length
        lengths[:, _PAD] = self.length - lengths.sum(axis=1)
        ends = np.cumsum(lengths.reshape(-1)).reshape(lengths.shape)
        starts = ends - lengths
        tokens, word_starts = self._gather(some, starts, lengths)
        text, short = np.flatnonzero(there), np.flatnonzero(lengths[:, _PAD])
        for part, token in ((_CLS, self.vocabulary.cls), (_SEP_A, self.vocabulary.sep), (_SEP_B, self.vocabulary.sep)):
            tokens[starts[text, part]], word_starts[starts[text, part]] = token, True
        positions = np.tile(np.arange(self.length, dtype=np.int32), len(numbers))
        segments = np.zeros(len(tokens), dtype=np.int32)
        if len(short):
            padding = _places(starts[short, _PAD], lengths[short, _PAD])
            tokens[padding], segments[padding], positions[padding] = self.vocabulary.pad, -1, 0
            word_starts[padding] = False
        return Rows(
            tokens=tokens,
            offsets=np.arange(len(numbers) + 1) * self.length,
            segment_ids=segments,
            position_ids=positions,
            word_starts=word_starts,
            example_ids=numbers,
            token_type_ids=np.repeat(np.tile(_TYPES, len(numbers)), lengths.reshape(-1)),
            row_labels=some.label,
        )

    def documents(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) the documents of the rows' first segments, in epoch 0."""
        numbers = np.asarray(numbers, dtype=np.int64)
        some = self._some(numbers, np.zeros_like(numbers), seed)
        found: I64 = np.searchsorted(self.split.documents.view(np.int64), some.a, side="right") - 1
        return found

    def sources(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) the sources of these documents."""
        return self.split.document_sources[self.documents(numbers, seed)].astype(np.int64)

    def _gather(self, some: Pairs, starts: I64, lengths: I64) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Returns the tokens and word starts of all rows; positions that are not text hold arbitrary tokens."""
        shifts = -starts
        shifts[:, _A] += some.a
        shifts[:, _B] += some.b
        source = np.repeat(shifts.reshape(-1), lengths.reshape(-1))
        source += np.arange(len(source))
        np.minimum(source, self.split.num_tokens - 1, out=source)
        return self.split.tokens.take(source).astype(np.int32), self.split.word_starts(source)

    def _some(self, numbers: I64, epochs: I64, seed: int) -> Pairs:
        """Returns the pairs of these rows; empty pairs without a label for rows past the end of their epoch."""
        count = len(numbers)
        some = Pairs(
            a=np.zeros(count, np.int64),
            a_length=np.zeros(count, np.int32),
            b=np.zeros(count, np.int64),
            b_length=np.zeros(count, np.int32),
            label=np.full(count, IGNORE, np.int32),
        )
        for epoch in np.unique(epochs).tolist():
            pairs = self.pairs(seed, epoch)
            inside = np.flatnonzero((epochs == epoch) & (numbers < len(pairs)))
            for name, array in vars(pairs).items():
                getattr(some, name)[inside] = array[numbers[inside]]
        return some


_TYPES = np.array([0, 0, 0, 1, 1, 0], dtype=np.int32)


def _places(starts: I64, lengths: I64) -> I64:
    """Returns the concatenated index ranges [starts, starts + lengths)."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))
