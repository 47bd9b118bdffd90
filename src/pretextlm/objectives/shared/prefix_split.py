"""The noise of prefix language modelling: a text is shown up to a random position, and the rest is to be predicted.

An encoder-decoder has a row for each part, and their widths would vary with that position. So a row reads two texts,
the halves of a run, and cuts the second as late as the first is cut early: each cut is uniform by itself, and the shown
parts always fill the encoder's row, as the rests fill the decoder's. For example, 3 + 2 of ten tokens:

    tokens            a b c d e | v w x y z
    encoder           a b c </s>  v w </s>        segments  0 0 0 0 1 1 1
    decoder input     [PAD] d e  [PAD] x y z
    decoder labels    d e </s>  x y z </s>        segments  0 0 0 1 1 1 1

A half sees nothing of the other: segments keep them apart in both rows and between them, and positions restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.shared.bounded_lengths import between

CUT = 2
"""Stream of random numbers: where a text is cut."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class PrefixSplit:
    """Prefix language modelling of running text.

    Attributes:
        rate: share of a text that is to be predicted, on average; at most one half.
        lead: a token precedes each source.
        name: for error messages.
    """

    rate: float = 0.5
    lead: bool = False
    name: str = "Prefix language modelling"

    def widths(self, length: int) -> tuple[int, int]:
        """Returns the (encoder, decoder) tokens that a text of `length` tokens becomes in two rows."""
        sizes, low, high = self._cuts(length)
        shown = int(low[0] + high[-1]) if len(sizes) == 2 else int(low[0])
        return shown + len(sizes) * (1 + self.lead), length - shown + len(sizes)

    def occupied(self, length: int, joint: bool) -> int:
        """Returns the positions of the input row that a text of `length` tokens fills; the only row, if `joint`."""
        return length + 1 + self.lead if joint else self.widths(length)[0]

    def raw_length(self, room: int, joint: bool = False) -> int:
        """Returns the longest text that fills `room` positions of the encoder, or of the only row if `joint`; else 0.

        PrefixSplit of unequal length are used only where both can be cut at the same number of positions.
        """
        if joint:
            return max(room - 1 - self.lead, 0)
        for length in range(ceil(room / (1 - self.rate)) + 4, 3, -1):
            if self.is_exact(length) and self.widths(length)[0] == room:
                return length
        return 0

    def check(self, room: int, joint: bool, vocabulary: Vocabulary) -> None:
        """Checks that rows of `room` positions are possible.

        Raises:
            UserError: they are too short; names a length that would do.
        """
        if self.raw_length(room, joint) < (2 if joint else 4):
            least = (3 if joint else 4) + self.lead * (1 if joint else 2)
            raise UserError(f"{self.name} cannot cut {room} tokens in two.", f"Give rows of at least {least} tokens.")

    def pair_rows(
        self, tokens: I32, example_ids: I64, vocabulary: Vocabulary, rng: CounterRNG, lead: int | None = None
    ) -> Batch:
        """Returns encoder and decoder rows. A text of fewer than four tokens is one part, not two halves.

        Args:
            tokens: (B, L) text.
            example_ids: (B,) of the rows.
            vocabulary: for </s> and the decoder's start token.
            rng: one stream per row.
            lead: id before each source, if the noise has one.
        """
        assert (lead is not None) == self.lead, "a lead token takes room"
        rows, length = tokens.shape
        sizes, low, high = self._cuts(length)
        cut = np.empty((rows, len(sizes), 1), dtype=np.int64)
        cut[:, 0] = between(rng.bits(CUT, 1), int(low[0]), int(high[0]))
        cut[:, 1:, 0] = low[0] + high[-1] - cut[:, :1, 0]  # the two cuts always sum to low + high
        before = int(self.lead)
        room = np.full((rows, len(sizes), before + int(sizes.max()) + 1), vocabulary.eos, dtype=np.int32)
        if lead is not None:
            room[:, :, 0] = lead
        text = room[:, :, before:]
        for part, (start, size) in enumerate(zip(np.cumsum(sizes) - sizes, sizes, strict=True)):
            text[:, part, :size] = tokens[:, start : start + size]
        # In `text`, each half ends in </s> at column `end`. A half a b c </s> cut at 1 is shown as a </s>, is labelled
        # b c </s> (columns cut … end), and its decoder reads <start> b c (columns cut - 1 … end - 1, the first
        # overwritten by the start token).
        column, end = np.arange(text.shape[2]), sizes[:, None]
        labels = text[(column >= cut) & (column <= end)].reshape(rows, -1)
        inputs = text.copy()
        np.put_along_axis(inputs, cut - 1, np.int32(vocabulary.start), axis=2)
        inputs = inputs[(column >= cut - 1) & (column < end)].reshape(rows, -1)
        np.put_along_axis(text, cut, np.int32(vocabulary.eos), axis=2)
        source = room[np.arange(room.shape[2]) <= before + cut].reshape(rows, -1)
        segments, positions = _two_parts(source, cut[:, :1, 0] + (1 + before), len(sizes))
        decoder_segments, decoder_positions = _two_parts(labels, sizes[0] + 1 - cut[:, :1, 0], len(sizes))
        return Batch(
            input_ids=source,
            segment_ids=segments,
            position_ids=positions,
            decoder_input_ids=inputs,
            decoder_labels=labels,
            decoder_segment_ids=decoder_segments,
            decoder_position_ids=decoder_positions,
            example_ids=example_ids,
        )

    def joint_rows(
        self, tokens: I32, example_ids: I64, vocabulary: Vocabulary, rng: CounterRNG, lead: int | None = None
    ) -> Batch:
        """Returns one decoder row per text: the shown part, </s>, and the rest, whose </s> is predicted, not read.

        Args:
            tokens: (B, L) text.
            example_ids: (B,) of the rows.
            vocabulary: for </s>.
            rng: one stream per row.
            lead: id before each source, if the noise has one.
        """
        assert (lead is not None) == self.lead, "a lead token takes room"
        rows, length = tokens.shape
        before = int(self.lead)
        low, high = prefix_range(length, self.rate)
        cut = between(rng.bits(CUT, 1), low, high)
        row = np.empty((rows, before + length + 1), dtype=np.int32)
        if lead is not None:
            row[:, 0] = lead
        text = row[:, before:]
        # Tokens a b c cut at 2: first shifted right (. a b c), then a b copied back (a b b c), then </s> at the cut.
        text[:, 1:] = tokens
        column = np.arange(length + 1)
        np.copyto(text[:, :-1], tokens, where=column[:-1] < cut)
        np.put_along_axis(text, cut, np.int32(vocabulary.eos), axis=1)
        labels = np.full(row.shape, IGNORE, dtype=np.int32)
        np.copyto(labels[:, before:-1], tokens, where=column[:-1] >= cut)
        labels[:, -1] = vocabulary.eos
        prefix = np.empty(row.shape, dtype=np.int32)
        prefix[:] = cut + (before + 1)
        return Batch(input_ids=row, labels=labels, prefix=prefix, attention="prefix", example_ids=example_ids)

    def _cuts(self, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Returns the lengths of the parts of a text, and the first and the last position where each may be cut."""
        sizes = np.array([length // 2, length - length // 2] if length > 3 else [length])
        low, high = prefix_range(sizes, self.rate)
        if len(sizes) == 1:
            return sizes, high, high
        return (sizes, low, high) if self.is_exact(length) else (sizes, low[[0, 0]], high[[0, 0]])

    def is_exact(self, length: int) -> bool:
        """Whether the halves of a text can be cut at the same number of positions."""
        (low, more), (high, higher) = prefix_range(np.array([length // 2, length - length // 2]), self.rate)
        return bool(high - low == higher - more)


def prefix_range(length: Any, rate: float) -> tuple[Any, Any]:
    """Returns the (least, most) tokens that are shown of a text of `length` tokens; the number is uniform between them.

    T5's rule: at a rate of one half, any number that leaves a token to predict; below it, no fewer than leave twice the
    rate. For 21 tokens at a rate of 0.25 it is 10 … 20.

    Args:
        length: integer or array.
        rate: share of a text that is to be predicted, on average.
    """
    most = np.maximum(length - 1, 1)
    return np.clip(np.rint((1 - 2 * rate) * (length - 1)).astype(np.int64), 1, most), most


def _two_parts(row: I32, first: I64, parts: int) -> tuple[I32, I32]:
    """Returns (B, T) segments and positions of rows whose second part begins at column `first` (B, 1)."""
    column = np.arange(row.shape[1], dtype=np.int32)
    if parts == 1:
        return np.zeros_like(row), np.tile(column, (len(row), 1))
    segments = (column >= first).astype(np.int32)
    return segments, column - segments * first.astype(np.int32)
