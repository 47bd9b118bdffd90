"""The noise of span corruption as array functions: how much is hidden, where, and the source and target it results in.

All rows of one length hide the same number of tokens in the same number of spans, so that sources and targets have one
width each and nothing is padded; only the positions of the cuts are random.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.shared.bounded_lengths import lengths_in_range

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

Edges = Literal["t5", "free"]

TEXT, HIDDEN = range(2)
"""Streams of random numbers: where the text is cut, and where the hidden part is."""

MAX_RATE = 0.9
"""Above it, a row would have to read more than ten times the text that fits into its input."""


@dataclass(frozen=True)
class Spans:
    """Span corruption of one kind.

    Attributes:
        rate: share of the tokens that are hidden.
        span_length: hidden tokens per span on average, or the shortest and the longest span.
        edges: "t5": a row begins with text and ends hidden; "free": it may begin and end either way.
        final_sentinel: the target ends with one more sentinel.
        lead: a token precedes the source.
        name: for error messages.
    """

    rate: float
    span_length: float | tuple[int, int] = 3.0
    edges: Edges = "t5"
    final_sentinel: bool = False
    lead: bool = False
    name: str = "Span corruption"

    def counts(self, length: int) -> tuple[int, int]:
        """Returns (hidden tokens, spans) of a text of `length` tokens."""
        if isinstance(self.span_length, tuple):
            return counts_in_range(length, self.rate, *self.span_length)
        return span_counts(length, self.rate, self.span_length)

    def sentinels(self, length: int) -> int:
        """Returns how many sentinels a text of `length` tokens takes."""
        spans = self.counts(length)[1]
        return spans + 1 if spans and self.final_sentinel else spans

    def widths(self, length: int) -> tuple[int, int]:
        """Returns the (source, target) tokens that a text of `length` tokens becomes."""
        noise, spans = self.counts(length)
        return int(self.lead) + length - noise + spans + 1, noise + self.sentinels(length) + 1

    def occupied(self, length: int, joint: bool) -> int:
        """Returns the positions of the input row that a text of `length` tokens fills.

        Args:
            length: of the text.
            joint: the row holds source and target, whose last token is only predicted; else the source alone.
        """
        source, target = self.widths(length)
        return source + target - 1 if joint else source

    def raw_length(self, room: int, joint: bool = False) -> int:
        """Returns the length of the longest text that fills `room` positions; else of the longest that fits, or 0.

        With separate rows for source and target it is T5's helper, with its exception: at a rate of one half the
        target may not be longer than the source.
        """
        slack = max(self.span_length) if isinstance(self.span_length, tuple) else 0
        most = ceil((room + slack) / (1 - self.rate)) + 2
        found = 0
        for length in range(most, 1, -1):
            occupied = self.occupied(length, joint)
            if occupied == room or (occupied < room and not slack):
                found = length
                break
            if occupied < room:  # spans in a narrow range leave gaps: a shorter text may fill more
                found = found or length
                if occupied < room - slack - 2:
                    break
        if not joint and self.rate == 0.5 and self.widths(found)[1] > room:
            found -= 1
        return found if found > 1 else 0

    def split(self, tokens: I32, vocabulary: Vocabulary, rng: CounterRNG, lead: int | None = None) -> tuple[I32, I32]:
        """Returns the source (B, S) and the target (B, T), each closed by </s>.

        Args:
            tokens: (B, L) text.
            vocabulary: for the sentinels and </s>.
            rng: one stream per row.
            lead: id before the source, if the noise has one.

        Raises:
            UserError: the vocabulary has too few sentinels for a text of this length.
        """
        assert (lead is not None) == self.lead, "a lead token takes room"
        length = tokens.shape[1]
        self._check_sentinels(length, vocabulary)
        noise, spans = self.counts(length)
        sentinels = np.asarray(vocabulary.sentinels[: self.sentinels(length)], dtype=np.int32)
        hidden = None
        if isinstance(self.span_length, tuple):
            hidden = lengths_in_range(rng, HIDDEN, noise, spans, *self.span_length)
        lengths = hidden_lengths(rng, (TEXT, HIDDEN), length, noise, spans, self.edges, hidden)
        return source_and_target(tokens, lengths, sentinels, vocabulary.eos, lead)

    def check(self, room: int, joint: bool, vocabulary: Vocabulary) -> None:
        """Checks that rows of `room` positions are possible with this vocabulary.

        Raises:
            UserError: they are not; names a length that would be.
        """
        length = self.raw_length(room, joint)
        if length < 2:
            raise UserError(
                f"{self.name} cannot fit text, a sentinel and </s> into {room} tokens.", "Give a longer row."
            )
        if isinstance(self.span_length, tuple) and not self._has_a_span(room, joint):
            shortest = self.span_length[0]
            enough = next(n for n in range(room, 100 * room * shortest) if self._has_a_span(n, joint))
            raise UserError(
                f"{self.name}: rows of {room} tokens are too short to hide a span of {shortest}.",
                f"Give rows of at least {enough} tokens, or a shorter span.",
            )
        if self.sentinels(length) > len(vocabulary.sentinels):
            longest = self._longest(room, joint, len(vocabulary.sentinels))
            self._check_sentinels(length, vocabulary, f"give rows of at most {longest} tokens" if longest else "")

    def _check_sentinels(self, length: int, vocabulary: Vocabulary, way_out: str = "shorten the rows") -> None:
        needed, there = self.sentinels(length), len(vocabulary.sentinels)
        if needed > there:
            ways = [f"Prepare the data with --sentinels {needed}", way_out, "or ask for longer spans"]
            raise UserError(
                f"{self.name} needs {needed} sentinels for rows of this length; the tokenizer has {there}.",
                ", ".join(way for way in ways if way) + ".",
            )

    def _has_a_span(self, room: int, joint: bool) -> bool:
        assert isinstance(self.span_length, tuple)
        return self.counts(self.raw_length(room, joint))[0] >= self.span_length[0]

    def _longest(self, room: int, joint: bool, sentinels: int) -> int:
        """Returns the positions of the longest rows that need no more sentinels than these; 0 if none do."""
        low, high = 0, room
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.sentinels(self.raw_length(middle, joint)) <= sentinels
            low, high = (middle, high) if fits else (low, middle)
        return low if self.raw_length(low, joint) else 0


def span_counts(length: int, rate: float, mean_span_length: float) -> tuple[int, int]:
    """Returns (hidden tokens, spans) of a row: at least one of each, and one token of text before each span.

    Only this function rounds (half to even, as T5), so that the size of a row and its mask cannot disagree: 20 tokens
    at a rate of 0.15 in spans of 3 give (3, 1). A row of fewer than two tokens hides none.
    """
    if length < 2:
        return 0, 0
    noise = min(max(round(length * rate), 1), length - 1)
    spans = min(max(round(noise / mean_span_length), 1), noise, length - noise)
    return noise, spans


def counts_in_range(length: int, rate: float, shortest: int, longest: int) -> tuple[int, int]:
    """Returns the same for spans of `shortest` to `longest` tokens, as many as their middle length suggests.

    Where so many spans of these lengths cannot hold as many tokens as the rate demands, the nearest possible number is
    hidden. A text so short that the rate does not fill one span has one that is shorter.
    """
    noise, _ = span_counts(length, rate, 1.0)
    if noise < shortest:
        return noise, min(noise, 1)
    spans = round(2 * noise / (shortest + longest))
    spans = max(1, min(spans, length // (shortest + 1)))
    return min(max(noise, spans * shortest), spans * longest, length - spans), spans


def hidden_lengths(
    rng: CounterRNG,
    streams: tuple[int, int],
    length: int,
    noise: int,
    spans: int,
    edges: Edges = "t5",
    hidden: I64 | None = None,
) -> I64:
    """Returns (B, spans, 2) lengths of the runs of text and of hidden tokens in turn, uniform over all such cuts.

    With edges="free", the first run of text may be empty, and text may follow the last span: the rest of the row.

    Args:
        rng: one stream per row.
        streams: streams of random numbers for the text and for the hidden tokens.
        length: tokens of a row.
        noise: hidden tokens of a row.
        spans: spans of a row.
        edges: whether a row must begin with text and end hidden ("t5").
        hidden: (B, spans) lengths of the spans, where they are known already.
    """
    lengths = np.empty((len(rng.keys), spans, 2), dtype=np.int64)
    if edges == "t5":
        lengths[:, :, 0] = _composition(rng, streams[0], length - noise, spans)
    else:
        # The runs at both ends may be empty: with one token more at each they are positive, as a composition needs.
        lengths[:, :, 0] = _composition(rng, streams[0], length - noise + 2, spans + 1)[:, :-1]
        lengths[:, :1, 0] -= 1
    lengths[:, :, 1] = _composition(rng, streams[1], noise, spans) if hidden is None else hidden
    return lengths


def _composition(rng: CounterRNG, stream: int, total: int, parts: int) -> I64:
    """Returns (B, parts) positive integers that sum to `total`, uniform over all such sequences.

    A composition is a choice of parts - 1 of the total - 1 gaps between units: of 7 in 3 parts, the gaps after units 2
    and 6 give 2, 4, 1.
    """
    if not parts:
        return np.empty((len(rng.keys), 0), dtype=np.int64)
    edges = np.zeros((len(rng.keys), parts + 1), dtype=np.int64)
    cuts = rng.order(stream, total - 1, parts - 1)
    cuts.sort(axis=1)
    edges[:, 1:-1] = cuts + 1
    edges[:, -1] = total
    return np.diff(edges, axis=1)


def source_and_target(tokens: I32, lengths: I64, sentinels: I32, end: int, lead: int | None = None) -> tuple[I32, I32]:
    """Cuts tokens into the text with a sentinel for each span, and the spans, each after its sentinel.

    Each sentinel overwrites a token that is not kept: in the source the span's first token, in the target the token
    before the span (of text, or the place of the lead). Then the kept tokens are copied out:

        tokens            a b C D e F            lengths  2 2 | 1 1
        row           </s> a b C D e F </s> </s>     (lead, tokens, final sentinel, end)
        borders             3 5 | 6 7                flat positions where text and hidden parts alternate
        hidden          0  0 0 1 1 0 1 0 0           their running exclusive or
        source             a b <0>  e <1>   </s>     text, with C and F overwritten
        target               <0> C D <1> F  </s>     hidden, with b and e overwritten

    Args:
        tokens: (B, L) text.
        lengths: (B, spans, 2) runs of text and hidden tokens in turn; the rest of a row is text.
        sentinels: (spans,) ids in order of use; with one more, the target ends with it.
        end: id that closes both.
        lead: id before the source.

    Returns:
        source (B, text + spans + 1) and target (B, hidden + sentinels + 1); all rows have the same two widths. A lead
        makes the source one wider.
    """
    rows, length = tokens.shape
    spans = lengths.shape[1]
    width = length + 3  # lead, tokens, final sentinel, end
    row = np.empty((rows, width), dtype=np.int32)
    row[:, 0] = end if lead is None else lead
    row[:, 1:-2] = tokens
    row[:, -2] = end if len(sentinels) == spans else sentinels[-1]
    row[:, -1] = end
    borders = np.cumsum(lengths.reshape(rows, -1), axis=1) + (1 + np.arange(rows) * width)[:, None]
    flips = np.zeros(rows * width, dtype=bool)
    flips[borders] = True
    hidden = np.logical_xor.accumulate(flips).reshape(rows, width)
    first = borders[:, ::2].reshape(-1)  # flat position of each span's first token
    marks = np.tile(sentinels[:spans], rows)
    text = ~hidden
    text[:, 0], text[:, -2] = lead is not None, False
    hidden[:, -2:] = len(sentinels) > spans, True
    return _copy_out(row.copy(), text, first, marks), _copy_out(row, hidden, first - 1, marks)


def _copy_out(row: I32, keep: NDArray[np.bool_], places: I64, marks: I32) -> I32:
    """Returns the kept tokens of each row, after `marks` are written to the flat `places`. Changes its arguments."""
    flat, kept = row.reshape(-1), keep.reshape(-1)
    flat[places] = marks
    kept[places] = True
    return np.compress(kept, flat).reshape(len(row), -1)
