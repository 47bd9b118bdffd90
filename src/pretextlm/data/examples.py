"""Examples of their own length, read in any order and packed into rows without padding between them.

    examples       7 8 9     5     4 4 2       in rows of 5
    rows           7 8 9 5 .     4 4 2 . .
    segments       0 0 0 1 -     0 0 0 - -
    positions      0 1 2 0 .     0 1 2 . .

Packing happens per forward pass, so that a step has exactly as many examples as the recipe says. An example may have
several texts that do not attend to each other (sentences to compare, choices of a question); they are packed like
examples, and always in the same pass. Packing is next-fit in the given order, without a loop over examples (see
data/packed_pairs.py).

Axis letters: E examples, M texts of all examples, N tokens of all examples.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.attention_mask import AttentionKind
from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import permute
from pretextlm.data.sentence_pair_index import reachable

I64 = NDArray[np.int64]

ROW_TOKENS = 128
"""Maximum width of a row that several short examples share."""
STEP = 16
"""Row widths are multiples of it, so that few different shapes occur."""
ORDERED_AT_ONCE = 1024
"""Number of examples that are reordered together to fill rows well; the cost grows with its square."""
EVEN = 384
"""Width at which the quadratic cost of attention equals all other cost, for a small encoder."""


@dataclass(frozen=True)
class Examples:
    """Tokenized examples with their labels.

    Attributes:
        tokens: (N,) int32 ids of all examples, special tokens included.
        offsets: (E+1,) int64; example e is tokens[offsets[e]:offsets[e+1]].
        records: (E,) int64 index of the record that each example comes from; a record may give several examples.
        types: (N,) int32 token type of each token; None if there is one type.
        texts: (N,) int32 index of each token's text in its example, from 0; None if every example has one text.
        labels: (E,) or (E, K) int32 or float32 labels of the examples.
        token_labels: (N,) int32 label of each token, IGNORE for none.
        places: (N, 2) int32 character range of each token in the record's text, for tasks that map tokens back to
            text; an empty range for a token without text.
    """

    tokens: NDArray[np.int32]
    offsets: I64
    records: I64
    types: NDArray[np.int32] | None = None
    texts: NDArray[np.int32] | None = None
    labels: NDArray[Any] | None = None
    token_labels: NDArray[np.int32] | None = None
    places: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)


class ExampleReader:
    """Reads examples as rows. Threads may share one reader.

    Args:
        in_order: keep the requested order within a batch, as predictions need it, instead of the order that fills
            rows best.
    """

    def __init__(self, examples: Examples, in_order: bool = False) -> None:
        self.examples, self.in_order = examples, in_order

    @property
    def rows_per_pass(self) -> int:
        """Returns the number of examples."""
        return len(self.examples)

    @cached_property
    def tokens_per_row(self) -> float:
        """Returns the mean number of tokens of an example."""
        return self.examples.num_tokens / len(self.examples)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Returns (row numbers, epochs) at positions `ordinals` (B,) of training; each epoch is permuted by its own
        key.
        """
        epochs, places = np.divmod(np.asarray(ordinals, np.int64), len(self.examples))
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            numbers[inside] = permute(places[inside], len(self.examples), seed, epoch)
        return numbers, epochs

    def groups(self, numbers: I64) -> list[I64]:
        """Returns one group, since all examples share a variant, in an order that fills rows well."""
        if not len(numbers):
            return []
        if self.in_order:
            return [np.arange(len(numbers))]
        lengths = np.diff(self.examples.offsets)[numbers]
        starts = range(0, len(numbers), ORDERED_AT_ONCE)
        return [np.concatenate([start + well_filling(lengths[start : start + ORDERED_AT_ONCE]) for start in starts])]

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        """Returns the examples with these numbers (B,), each of its own length. Epochs, seed and pad have no effect."""
        examples, numbers = self.examples, np.asarray(numbers, np.int64)
        begin = examples.offsets[numbers]
        lengths = examples.offsets[numbers + 1] - begin
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        index = np.repeat(begin, lengths) + places
        texts = None if examples.texts is None else examples.texts[index]
        return Rows(
            tokens=examples.tokens[index],
            offsets=offsets,
            segment_ids=np.zeros(len(index), np.int32) if texts is None else texts,
            position_ids=_positions(places, texts),
            word_starts=np.zeros(len(index), np.bool_),
            example_ids=numbers,
            token_type_ids=None if examples.types is None else examples.types[index],
            row_labels=None if examples.labels is None else examples.labels[numbers],
            token_labels=None if examples.token_labels is None else examples.token_labels[index],
        )


def _positions(places: I64, texts: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """Returns (N,) the positions of tokens in their texts, from their positions in the examples."""
    if texts is None:
        return places.astype(np.int32)
    begins = np.flatnonzero((places == 0) | (np.diff(texts, prepend=-1) != 0))
    return (np.arange(len(places)) - np.repeat(begins, np.diff(begins, append=len(places)))).astype(np.int32)


def next_fit(*sides: tuple[I64, int]) -> I64:
    """Pack examples in the given order: a row takes examples while all of their lengths fit.

    Args:
        sides: (lengths (E,), capacity of a row) for each length that is limited; no length exceeds the capacity.

    Returns:
        The index of the first example of each row.
    """
    fitting = []
    for lengths, room in sides:
        sums = np.concatenate([[0], np.cumsum(lengths)])
        fitting.append(np.searchsorted(sums, sums[:-1] + room, side="right") - 1)
    return reachable(np.minimum.reduce(fitting), np.zeros(1, np.int64))


def filled(lengths: list[int], width: int) -> list[list[int]]:
    """Returns the examples of each row by first-fit decreasing: a row takes the longest example that still fits."""
    left = sorted((length, -place) for place, length in enumerate(lengths))
    rows = []
    while left:
        room, row = width, []
        while at := bisect_left(left, (room + 1, -len(lengths))):
            length, place = left.pop(at - 1)
            room -= length
            row.append(-place)
        rows.append(row)
    return rows


def widths(longest: int) -> range:
    """Returns the candidate row widths, each at least `longest`."""
    narrowest = -(-longest // STEP) * STEP
    return range(narrowest, max(narrowest, ROW_TOKENS) + 1, STEP)


def expense(rows: int, width: int) -> int:
    """Returns the cost of computing `rows` rows of this width, in arbitrary units."""
    return rows * width * (EVEN + width)


def well_filling(lengths: I64) -> I64:
    """Order examples so that next-fit packing leaves little padding at the cheapest width.

    Rows are ordered by their first example, so that consecutive parts of the order have similar lengths.

    Returns:
        (E,) indices of the examples in that order.
    """
    plain = lengths.tolist()
    packed = {width: filled(plain, width) for width in widths(max(plain))}
    width = min(packed, key=lambda w: expense(len(packed[w]), w))
    rows = sorted((sorted(row) for row in packed[width]), key=lambda row: row[0])
    return np.fromiter((place for row in rows for place in row), np.int64, len(plain))


def side_by_side(rows: Rows, pad: int, attention: AttentionKind) -> Batch:
    """Pack ragged rows into one batch, next-fit in their order; `row_labels` keep one entry per example.

    Returns:
        A batch whose `labels` are the rows' token labels. Its width is the cheapest one.
    """
    sums = np.append(np.flatnonzero(rows.position_ids == 0), len(rows.tokens))
    lengths = np.diff(sums)
    packed = {width: next_fit((lengths, width)) for width in widths(int(lengths.max()))}
    width = min(packed, key=lambda w: expense(len(packed[w]), w))
    first = packed[width]
    row_of = np.searchsorted(first, np.arange(len(lengths)), side="right") - 1
    shift = row_of * width - sums[first][row_of]  # from a token's place among all to its place in the batch
    places = np.arange(int(sums[-1])) + np.repeat(shift, lengths)
    shape = (len(first), width)

    def spread(values: NDArray[Any] | None, empty: int) -> NDArray[np.int32]:
        found = np.full(shape, empty, np.int32)
        if values is not None:
            found.reshape(-1)[places] = values
        return found

    segments = np.repeat(np.arange(len(lengths)) - first[row_of], lengths)
    return Batch(
        input_ids=spread(rows.tokens, pad),
        labels=spread(rows.token_labels, IGNORE),
        segment_ids=spread(segments, -1),
        position_ids=spread(rows.position_ids, 0),
        token_type_ids=None if rows.token_type_ids is None else spread(rows.token_type_ids, 0),
        row_labels=rows.row_labels,
        attention=attention,
        example_ids=rows.example_ids,
    )


def first_places(batch: Batch) -> I64:
    """Returns (M,) the flat index in the batch of each text's first token, in the order of the texts."""
    inside = batch.segment_ids.reshape(-1) >= 0
    return np.flatnonzero(inside & (batch.position_ids.reshape(-1) == 0))


def last_places(batch: Batch) -> I64:
    """Returns (M,) the flat index in the batch of each text's last token, in the order of the texts."""
    inside = batch.segment_ids >= 0
    ends = np.ones_like(inside)
    ends[:, :-1] = batch.segment_ids[:, 1:] != batch.segment_ids[:, :-1]
    return np.flatnonzero((inside & ends).reshape(-1))


def tokens_of_texts(segments_BT: Any, positions_BT: Any) -> tuple[I64, I64, I64]:
    """Returns (flat index, text, position in text) of every token that is not padding, in the order of the texts."""
    inside = np.flatnonzero(segments_BT.reshape(-1) >= 0)
    place = positions_BT.reshape(-1)[inside]
    return inside, np.cumsum(place == 0) - 1, place
