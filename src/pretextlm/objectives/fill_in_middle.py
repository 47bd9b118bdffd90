"""Move the middle of a text to its end, so that a causal model learns to fill it in (Bavarian et al. 2022).

    tokens    <s> a ⎵ship ⎵sail ed </s>           cuts after "a sh" and after "a ship sai"
    input     <s> <fim_prefix> a ⎵sh <fim_suffix> l ed <fim_middle> ip ⎵sai </s>
    or        <s> <fim_prefix> <fim_suffix> l ed <fim_middle> a ⎵sh ip ⎵sai </s>
    labels    at each token the next, as in causal language modelling

At the end, </s> means that the middle has reached the suffix. The second order puts the suffix first; the prefix then
continues into the middle without a mark between them.

Paper: Efficient Training of Language Models to Fill in the Middle, https://arxiv.org/abs/2207.14255. Its choices: both
cuts are at characters, uniform from the start of the text to its end; a document means the part of it in the row (its
"context-level" form), so that no part is lost to another row; half of the documents are rearranged (it found that nine
in ten do no harm), half of these with the suffix first; the loss is on all tokens. The paper encodes the three parts
again; here only the tokens that are cut are encoded again.

The marks, and tokens cut in two, make a row longer, and it is cut back to its length, as in the paper. So rows have one
width and no padding, but an epoch does not read the ends of its rows: of English Wikipedia in rows of 512, some two
documents per row, 1.2 % of the tokens.

Requires <s>, </s>, <fim_prefix>, <fim_suffix>, <fim_middle> and a vocabulary with the spelling of its tokens. Suits a
decoder. Unchanged documents are those of causal language modelling, and the model generates as a causal one does. Span
corruption fills in, too, but several pieces at once, and sees the text around them in both directions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from pretextlm.data.token_splits import TokenSplits
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.causal import Causal, CausalLayout
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.measures import PERPLEXITY, Measure
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import BlankLayout

CHOICE, CUTS = range(2)
"""Streams of random numbers, one for each document of a row: whether and in which order it is rearranged, and the
positions of its cuts."""

MARKS = (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE)

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


class FillInMiddle(Causal):
    """Fill in the middle: causal language modelling of documents whose middle comes last.

    Args:
        isolate: packed documents neither see nor predict each other, and positions restart in each; without it a
            row is one run of text.
        rate: share of the documents that are rearranged; one without a character never is.
        suffix_first: share of these in the order suffix, prefix, middle; the others are prefix, suffix, middle.
    """

    name: ClassVar[str] = "fill_in_middle"
    title: ClassVar[str] = "Fill in the middle"
    paper: ClassVar[str] = "Bavarian et al. 2022, https://arxiv.org/abs/2207.14255"
    summary: ClassVar[str] = (
        "The middle of a text is moved to its end, so that a model that reads from left to right learns to fill it in."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder",)
    measures: ClassVar[tuple[Measure, ...]] = (PERPLEXITY,)
    models_every_token: ClassVar[bool] = False
    extra_tokens: ClassVar[int] = 3 + 2 * 8  # three marks, and two tokens cut into pieces

    rate: float = Field(default=0.5, ge=0, le=1, description="share of the documents that are rearranged")
    suffix_first: float = Field(default=0.5, ge=0, le=1, description="share of these that begin with the suffix")

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """By the three marks, or as a causal model where no document is rearranged."""
        if not self.rate:
            return super().blank_layout(vocabulary, architecture)
        return MiddleLayout(vocabulary, self.frame(vocabulary), self.suffix_first > 0)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns the rows of causal language modelling.

        Raises:
            UserError: the length is below 1, or the vocabulary lacks the three marks or its tokens' splits.
        """
        for mark in MARKS:
            vocabulary.id_of(mark)
        _ = vocabulary.token_splits
        return super().variants(vocabulary, length)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns inputs and labels (B, T) of the rearranged documents of (B, T + 1) tokens."""
        splits, documents = vocabulary.token_splits, _Documents.of(rows, vocabulary)
        characters = documents.characters(rows.tokens, splits)
        chosen, suffix_first, low, high = self._draw(rows, documents, characters, rng)

        # The later cut first, then the earlier one, which moves the tokens behind it and so the position `after`.
        tokens, documents, (after,) = documents.cut(rows.tokens, chosen, high, splits, [])
        tokens, documents, (before, after) = documents.cut(tokens, chosen, low, splits, [after])
        before = np.minimum(before, after)  # it may be greater where only the earlier cut of a token can be spelled
        order, sizes = documents.order(chosen, suffix_first, before, after)
        marks = [vocabulary.id_of(mark) for mark in MARKS]
        tokens = np.concatenate([tokens, np.array(marks, dtype=np.int32)]).take(order)

        begin = np.cumsum(sizes) - sizes
        positions = np.arange(len(order), dtype=np.int32) - np.repeat(begin.astype(np.int32), sizes)
        segments = np.repeat(documents.segment, sizes)
        positions[segments < 0] = 0
        kept = begin[np.searchsorted(documents.row, np.arange(len(rows)))][:, None] + np.arange(rows.width)
        return layout.next_tokens(
            tokens.take(kept), segments.take(kept), positions.take(kept), rows.example_ids, self.isolate
        )

    def _draw(
        self, rows: Rows, documents: _Documents, characters: I64, rng: CounterRNG
    ) -> tuple[I64, NDArray[np.bool_], I64, I64]:
        """Returns the documents to rearrange, which of them suffix first, and the characters before both cuts."""
        most = int(documents.segment.max(initial=0)) + 1
        choice = rng.bits(CHOICE, most)[documents.row, documents.segment]
        selected = (choice >> _HALF) < np.uint64(round(self.rate * 2**32))
        chosen = np.flatnonzero(selected & (characters > 0) & (documents.segment >= 0))
        suffix_first = (choice[chosen] & _LOW) < np.uint64(round(self.suffix_first * 2**32))
        places = rng.bits(CUTS, most)[documents.row[chosen], documents.segment[chosen]]
        room = (characters[chosen] + 1).astype(np.uint64)
        # Each half of the 64 bits is a fraction u / 2³², and u · room / 2³² is uniform over 0 … characters.
        one, other = (places >> _HALF) * room >> _HALF, (places & _LOW) * room >> _HALF
        return chosen, suffix_first, np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)


@dataclass(frozen=True)
class _Documents:
    """The parts of documents in the rows, in order; a row's padding counts as one. All arrays are (P,).

    Attributes:
        row: row of each.
        segment: its number in the row.
        start, stop: its first flat position, and the one after its last.
        text, end: the same without the special tokens around it.
    """

    row: I64
    segment: NDArray[np.int32]
    start: I64
    text: I64
    end: I64
    stop: I64

    @classmethod
    def of(cls, rows: Rows, vocabulary: Vocabulary) -> _Documents:
        opens = np.diff(rows.segment_ids, prepend=-2) != 0
        opens[:: rows.width] = True
        start = np.flatnonzero(opens)
        stop = np.append(start[1:], len(rows.tokens))
        text = start + vocabulary.is_special.take(rows.tokens[start])
        end = np.maximum(stop - vocabulary.is_special.take(rows.tokens[stop - 1]), text)
        return cls(start // rows.width, rows.segment_ids[start], start, text, end, stop)

    def characters(self, tokens: I32, splits: TokenSplits) -> I64:
        """Returns (P,) the characters of each text."""
        counted = _counted(tokens, splits)
        sizes: I64 = counted[self.end] - counted[self.text]
        return sizes

    def cut(
        self, tokens: I32, chosen: I64, characters: I64, splits: TokenSplits, marked: list[I64]
    ) -> tuple[I32, _Documents, list[I64]]:
        """Cuts the token that holds a given character of each chosen document in two, where it is not at its start.

        Args:
            tokens: (N,) flat tokens.
            chosen: (D,) documents to cut.
            characters: (D,) characters of its text before the cut.
            splits: spelling of the halves of tokens.
            marked: positions to be moved along with the tokens.

        Returns:
            The new tokens, the documents at their new positions, and [(D,) the position after the cut, *marked].
        """
        counted = _counted(tokens, splits)
        end = self.end[chosen]
        target = counted[self.text[chosen]] + characters  # in characters of all rows
        inside = np.flatnonzero(target < counted[end])  # a cut after the last character cuts no token
        token = np.searchsorted(counted, target[inside], side="right") - 1
        cut = splits.cut(tokens, token, target[inside] - counted[token])
        between = cut.moved(end)
        between[inside] = cut.between
        start, text, end, stop = (cut.moved(places) for places in (self.start, self.text, self.end, self.stop))
        documents = replace(self, start=start, text=text, end=end, stop=stop)
        return cut.tokens, documents, [between, *map(cut.moved, marked)]

    def order(self, chosen: I64, suffix_first: NDArray[np.bool_], before: I64, after: I64) -> tuple[I64, I64]:
        """Returns the positions of the tokens in their new order, and the documents' sizes (P,).

        A document is a sequence of eight runs (start, stop), which a document that is not chosen fills with one run.
        The three marks are runs at the three positions after the last token.

        Args:
            chosen: (D,) documents to rearrange.
            suffix_first: (D,) in which order.
            before: (D,) position at which the middle begins.
            after: (D,) position at which the suffix begins.
        """
        start, text, end, stop = (places[chosen] for places in (self.start, self.text, self.end, self.stop))
        tokens = np.full_like(chosen, self.stop[-1])
        prefix_mark, suffix_mark, middle_mark = ((tokens + nth, tokens + nth + 1) for nth in range(3))
        head, tail = (start, text), (end, stop)
        prefix, middle, suffix = (text, before), (before, after), (after, end)
        one = np.array([head, prefix_mark, prefix, suffix_mark, suffix, middle_mark, middle, tail])
        other = np.array([head, prefix_mark, suffix_mark, suffix, middle_mark, prefix, middle, tail])
        runs = np.zeros((2, len(self.start), len(one)), dtype=np.int64)
        runs[:, :, 0] = self.start, self.stop
        runs[:, chosen] = np.where(suffix_first, other, one).transpose(1, 2, 0)
        first, lengths = runs[0].reshape(-1), (runs[1] - runs[0]).reshape(-1)
        places = np.arange(int(lengths.sum())) + np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
        return places, (runs[1] - runs[0]).sum(axis=1)


def _counted(tokens: I32, splits: TokenSplits) -> I64:
    """Returns (N + 1,) the characters that begin before each position."""
    counted = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum(splits.characters.take(tokens), out=counted[1:])
    return counted


class MiddleLayout(CausalLayout):
    """A decoder reads the text after the blank, then that before it, and continues; </s> ends the middle.

        <s> <fim_prefix> <fim_suffix> sat on the mat. <fim_middle> The | cat </s>

    A model that was not trained on this order reads both sides in their own:

        <s> <fim_prefix> The <fim_suffix> sat on the mat. <fim_middle> | cat </s>

    Scored is log p(candidate, </s> | both sides). The text behind a further blank is not seen.

    Args:
        suffix_first: the first of the two, in which no mark parts the candidate from the text before it.
    """

    def __init__(self, vocabulary: Vocabulary, frame: Frame, suffix_first: bool) -> None:
        super().__init__(vocabulary, frame)
        self.suffix_first = suffix_first

    def context(self, blank: Blank) -> list[int]:
        prefix, suffix, middle = (self.vocabulary.id_of(mark) for mark in MARKS)
        head = self.framed([], blank.starts_document) if blank.starts_document or not blank.left else []
        if self.suffix_first:
            return [*head, prefix, suffix, *blank.right, middle, *blank.left]
        return [*head, prefix, *blank.left, suffix, *blank.right, middle]

    def following(self, blank: Blank) -> list[int]:
        return [self.vocabulary.eos]
