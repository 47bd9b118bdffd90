"""Permute the sentences of a text, hide parts of it, and reconstruct the original text (Lewis et al. 2020).

    tokens    7 8 5 | 3 9 4 6                          the bar parts two sentences
    permuted  3 9 4 6 7 8 5                            hidden: the span 9 4, and an empty span before 8
    source    <s> 3 [MASK] 6 7 [MASK] 8 5 </s>
    target    <s> 7 8 5 3 9 4 6 </s>                   all of it is predicted

Paper: BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and
Comprehension, https://arxiv.org/abs/1910.13461. The defaults are those of the command BART was trained with: all
sentences permuted, 30 % hidden in spans whose lengths are Poisson's with mean 3.5 (3 in the paper), each behind one
[MASK], of which one in ten is a random token instead. The paper's other noises are options.

Here the length of the row fixes how many tokens are hidden in how many spans: of n tokens, m = round(0.3 n) in
round(m / 3.5) spans. Poisson lengths conditioned on their number and their sum m are multinomial, so each hidden token
is assigned to one of the spans with equal probability. Every order of the visible tokens and the spans is equally
likely. So all sources have one width without padding, spans never overlap, and an empty span is an inserted [MASK]. The
released code lets spans overlap, which hides fewer tokens than the rate says and loses masks.

With unit="word", spans consist of words, as in the released code. Then the number of hidden tokens varies, and sources
end in padding, about a fifth of the row.

Requires <s>, </s>, [MASK], the pad id that starts a decoder, and, to permute them, where sentences begin. Suits an
encoder-decoder. Rows are plain text, documents one after another, as in span corruption; sentences stay within their
document, and the edge of a row ends a sentence. Span corruption predicts only the hidden tokens, a quarter of the
decoder's work; here every token is predicted, most of them by copying.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective, Published
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.measures import TOKEN_ACCURACY, Measure
from pretextlm.objectives.shared.token_selection import first_columns
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import FOLLOWING_TOKENS, BlankLayout, ContinuationLayout

SENTENCES, PLACES, LENGTHS, REPLACE, ROTATE = range(5)
"""Streams of random numbers: the order of sentences, the hidden units, the lengths of spans, the replacements, and the
first token of a rotated text."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bools = NDArray[np.bool_]

_HALF = np.uint64(32)


class Denoising(Objective):
    """Denoising: the source is the noised text, the target the original text.

    Args:
        noise: "infilling" puts one [MASK] in place of each hidden span; "masking" one in place of each hidden token;
            "deletion" no token.
        rate: share of the tokens (or words) that are hidden.
        mean_span_length: hidden tokens (or words) per span, empty spans counted; for infilling.
        unit: "token", or "word", with which sources have different lengths and are padded.
        random_share: share of the [MASK]s that are random ordinary tokens instead.
        permute_sentences: put the sentences of each document in a random order.
        rotate: share of the rows whose noised text is rotated to begin at a random token.
    """

    name: ClassVar[str] = "denoising"
    title: ClassVar[str] = "Denoising"
    paper: ClassVar[str] = "Lewis et al. 2020, https://arxiv.org/abs/1910.13461"
    summary: ClassVar[str] = (
        "A text with holes, its sentences in the wrong order, is written anew as it was, from start to end."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder",)
    measures: ClassVar[tuple[Measure, ...]] = (TOKEN_ACCURACY,)
    published_as: ClassVar[tuple[Published, ...]] = (Published("bart"), Published("mbart"))

    noise: Literal["infilling", "masking", "deletion"] = Field(
        default="infilling", description="a mask for a hidden span, for a hidden token, or nothing"
    )
    rate: float = Field(default=0.3, gt=0, le=0.9, description="share of the tokens (or words) that are hidden")
    mean_span_length: float = Field(default=3.5, ge=1, description="hidden tokens (or words) per span, on average")
    unit: Literal["token", "word"] = Field(default="token", description="hide tokens or words")
    random_share: float = Field(default=0.1, ge=0, le=1, description="share of the masks that are random tokens")
    permute_sentences: bool = Field(default=True, description="put a document's sentences in a random order")
    rotate: float = Field(default=0.0, ge=0, le=1, description="share of the rows that begin at a random token")

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns no special tokens: documents follow each other."""
        return Frame(sentences=self.permute_sentences)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns decoder rows of `length`, <s> and </s> included, and sources that are shorter by the hidden tokens.

        Raises:
            UserError: the length is below 3, or there is no token to replace others by.
        """
        if length < 3:
            raise UserError(
                f"Denoising cannot fit text, <s> and </s> into {length} tokens.", "Give a length of at least 3."
            )
        if self.noise != "deletion" and self.random_share and not len(vocabulary.ordinary):
            raise UserError("The vocabulary has no ordinary token to replace others by.", "Set random_share=0.")
        return [Variant("main", raw=length - 2, length=self._source_width(length - 2), decoder_length=length)]

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The source shows the blank as the noise does; the decoder writes all of the text."""
        return DenoisingLayout(vocabulary, self.noise)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns sources and targets of (B, L) tokens. A row that ends in padding is a shorter text."""
        kept = rows.segment_ids >= 0
        counts = np.count_nonzero(rows.matrix(kept), axis=1)
        some = counts > 0
        text = rows.tokens[kept]
        target, written = _framed(text, counts, some, rows.width + 2, vocabulary)
        begins = None if self.unit == "token" else self._word_starts(rows)[kept]
        if self.permute_sentences:
            order = self.sentence_order(rows, kept, counts, rng)
            text, begins = text[order], None if begins is None else begins[order]
        text, left = self._noised(text, begins, counts, rows.width, vocabulary, rng)
        if self.rotate:
            text = text[self._rotation(left, rng)]
        source, read = _framed(text, left, some, self._source_width(rows.width), vocabulary)
        batch = layout.encoder_decoder(source, target, vocabulary, rows.example_ids)
        if read.all() and written.all():
            return batch
        assert batch.decoder_input_ids is not None
        return dataclasses.replace(
            batch,
            segment_ids=np.where(read, np.int32(0), np.int32(-1)),
            decoder_segment_ids=np.where(written, np.int32(0), np.int32(-1)),
            decoder_input_ids=np.where(written, batch.decoder_input_ids, np.int32(vocabulary.pad)),
            decoder_labels=np.where(written, target, np.int32(IGNORE)),
        )

    def hidden_counts(self, units: int | I64) -> tuple[I64, I64]:
        """Returns how many of a row's units are hidden, and in how many spans. Only this function rounds."""
        some = np.asarray(units)
        hidden = np.minimum(np.maximum(np.rint(self.rate * some), 1), some)
        spans = np.minimum(np.maximum(np.rint(hidden / self.mean_span_length), 1), hidden)
        return hidden.astype(np.int64), spans.astype(np.int64)

    def _source_width(self, raw: int) -> int:
        """Returns the width of the widest source: with words, a single long word may be all that remains."""
        if self.noise == "masking" or self.unit == "word":
            return raw + 2
        hidden, spans = self.hidden_counts(raw)
        return raw + 2 - int(hidden) + (int(spans) if self.noise == "infilling" else 0)

    def _word_starts(self, rows: Rows) -> Bools:
        """Returns (N,) where words begin; the start of a row and of a sentence begins one."""
        begins: Bools = rows.word_starts | (rows.position_ids == 0)
        return begins if rows.sentence_starts is None else begins | rows.sentence_starts

    def sentence_order(self, rows: Rows, kept: Bools, counts: I64, rng: CounterRNG) -> I64:
        """Returns (N,) the index of each token of the permuted text; all orders of sentences are equally likely.

        Sentences are sorted by document, then by a random number. Sentences [0 1] [2 3 4] in the order 1, 0: starts
        [2, 0], lengths [3, 2], shift = [2, 0] - [0, 3] = [2, -3], so that [0 1 2 3 4] + [2 2 2 -3 -3] = [2 3 4 0 1].
        """
        assert rows.sentence_starts is not None, "the frame asks for sentences"
        opens = rows.position_ids == 0
        borders = (rows.sentence_starts | opens)[kept]
        starts = np.flatnonzero(borders)
        lengths = np.diff(starts, append=len(borders))
        documents = np.cumsum(opens[kept])[starts]
        row = np.repeat(np.arange(len(rows)), counts)[starts]
        per_row = np.bincount(row, minlength=len(rows))
        keys = rng.bits(SENTENCES, int(per_row.max(initial=0)))[first_columns(per_row)]
        order = np.lexsort((keys, documents))
        lengths = lengths[order]
        shift = starts[order] - (np.cumsum(lengths) - lengths)
        places: I64 = np.arange(len(borders)) + np.repeat(shift, lengths)
        return places

    def _noised(
        self, text: I32, begins: Bools | None, counts: I64, width: int, vocabulary: Vocabulary, rng: CounterRNG
    ) -> tuple[I32, I64]:
        """Returns the flat tokens after the noise, row by row, and their number in each row (B,).

        Args:
            text: (N,) tokens of all rows without padding.
            begins: (N,) where words begin; None if every token is a unit.
            counts: (B,) tokens of each row.
            width: of a full row.
        """
        ends = np.cumsum(counts)
        if begins is None:
            starts, units = None, counts
        else:
            starts = np.flatnonzero(begins)
            units = np.diff(np.searchsorted(starts, ends), prepend=0)
        if self.noise == "infilling":
            hidden, at = self.place_spans(units, width, rng)
        else:
            hidden, at = self._chosen(units, width, rng), np.zeros(0, dtype=np.int64)
        if starts is not None:
            stops = np.append(starts, len(text))
            hidden, at = np.repeat(hidden, np.diff(stops)), stops[at]
        kept_before = np.zeros(len(text) + 1, dtype=np.int64)
        np.cumsum(~hidden, out=kept_before[1:])
        left = np.diff(kept_before[ends], prepend=0)
        if self.noise == "masking":
            out = text.copy()
            out[hidden] = self.replacements(counts - left, vocabulary, rng)
            return out, counts
        if self.noise == "deletion":
            return text[~hidden], left
        spans = self.hidden_counts(units)[1]
        return np.insert(text[~hidden], kept_before[at], self.replacements(spans, vocabulary, rng)), left + spans

    def place_spans(self, units: I64, width: int, rng: CounterRNG) -> tuple[Bools, I64]:
        """Returns (U,) which units of all rows are hidden, and (K,) the unit before which each span's mask is put.

        A row of 8 units, 3 hidden in 2 spans of 2 and 1: its 5 visible units and 2 spans have 7 slots.

            slots of the spans     1, 4        columns
            before each span       1, 3        visible units: columns - (0, 1)
            begin                  1, 5        plus the hidden units of earlier spans (0, 2)
            hidden                 1 2 . . 5   begin … begin + length - 1
        """
        hidden, spans = self.hidden_counts(units)
        slots = units - hidden + spans  # visible units and spans, in random order
        hidden_at_most, spans_at_most = self.hidden_counts(width)
        columns = self._draw(width - int(hidden_at_most - spans_at_most), slots, spans, rng)
        used = first_columns(spans)
        # Each hidden unit is assigned to one of its row's spans; the counts are the lengths, some of them 0.
        share = rng.bits(LENGTHS, int(hidden.max(initial=0))) >> _HALF
        share = share * spans.astype(np.uint64)[:, None] >> _HALF
        span_of = share.astype(np.int64) + (np.cumsum(spans) - spans)[:, None]
        lengths = np.bincount(span_of[first_columns(hidden)], minlength=int(spans.sum()))
        nth = np.arange(used.shape[1]) * np.ones_like(spans)[:, None]
        begin = columns[used] - nth[used] + np.cumsum(lengths) - lengths
        begin += np.repeat(np.cumsum(units) - units - (np.cumsum(hidden) - hidden), spans)
        total = int(units.sum())
        # +1 where a span begins and -1 where it ends; the running sum is above 0 inside of one.
        change = np.bincount(begin, minlength=total + 1) - np.bincount(begin + lengths, minlength=total + 1)
        return np.cumsum(change)[:total] > 0, begin

    def _chosen(self, units: I64, width: int, rng: CounterRNG) -> Bools:
        """Returns (U,) which units of all rows are hidden; every set of a row's units is equally likely."""
        counts = self.hidden_counts(units)[0]
        columns = self._draw(width, units, counts, rng) + (np.cumsum(units) - units)[:, None]
        hidden = np.zeros(int(units.sum()), dtype=bool)
        hidden[columns[first_columns(counts)]] = True
        return hidden

    def _draw(self, width: int, sizes: I64, counts: I64, rng: CounterRNG) -> I64:
        """Returns (B, most) counts[b] of the first sizes[b] columns of row b, ascending; all sets are equally likely.

        Args:
            width: at least every size, and the same in every batch, since the random choice depends on it.
            sizes: (B,) columns to choose from.
            counts: (B,) columns to choose.
            rng: one stream per row.
        """
        most = int(counts.max(initial=0))
        short = bool((sizes < width).any())
        columns = rng.order(PLACES, width, most, exclude=np.arange(width) >= sizes[:, None] if short else None)
        np.copyto(columns, width, where=~first_columns(counts))
        columns.sort(axis=1)
        return columns

    def replacements(self, counts: I64, vocabulary: Vocabulary, rng: CounterRNG) -> I32:
        """Returns the flat replacements, counts[b] for row b: [MASK] or random tokens."""
        draws = rng.bits(REPLACE, int(counts.max(initial=0)))[first_columns(counts)]
        values = np.full(len(draws), vocabulary.mask, dtype=np.int32)
        random = np.flatnonzero((draws >> _HALF) < np.uint64(round(self.random_share * 2**32)))
        choice = (draws[random] & np.uint64(0xFFFFFFFF)) * np.uint64(len(vocabulary.ordinary)) >> _HALF
        values[random] = vocabulary.ordinary.take(choice.astype(np.int64))
        return values

    def _rotation(self, counts: I64, rng: CounterRNG) -> I64:
        """Returns the flat index of each token of the rotated texts, which begin at a uniformly random token."""
        draws = rng.bits(ROTATE, 2) >> _HALF
        turned = draws[:, 0] < np.uint64(round(self.rotate * 2**32))
        start = np.where(turned, draws[:, 1] * counts.astype(np.uint64) >> _HALF, 0).astype(np.int64)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        place = np.arange(int(counts.sum())) - first + np.repeat(start, counts)
        size = np.repeat(counts, counts)
        return first + np.where(place >= size, place - size, place)


def _framed(text: I32, counts: I64, some: Bools, width: int, vocabulary: Vocabulary) -> tuple[I32, Bools]:
    """Returns (B, width) texts between <s> and </s>, padded, and (B, width) where they are not padding.

    Args:
        text: flat tokens, counts[b] of row b.
        counts: (B,) tokens of each row.
        some: (B,) False for rows that hold only padding.
        width: of the result.
        vocabulary: for the special tokens.
    """
    out = np.full((len(counts), width), vocabulary.pad, dtype=np.int32)
    column = np.arange(width)
    out[(column > 0) & (column <= counts[:, None])] = text
    out[some, 0], out[some, counts[some] + 1] = vocabulary.bos, vocabulary.eos
    return out, some[:, None] & (column < counts[:, None] + 2)


class DenoisingLayout(ContinuationLayout):
    """The encoder reads the text with a [MASK] in the blank, and the decoder writes all of it.

        encoder    <s> The [MASK] sat on the mat . </s>
        decoder    [PAD] <s> The | cat sat on the mat . </s>

    The decoder is given the text before the blank; a candidate is scored with the text after it, up to a further blank.

    Args:
        noise: "infilling" has one [MASK] in a blank, "masking" one for each hidden token, "deletion" none.
    """

    def __init__(self, vocabulary: Vocabulary, noise: Literal["infilling", "masking", "deletion"]) -> None:
        super().__init__(vocabulary)
        self.noise, self.source_shows_length = noise, noise == "masking"

    def source(self, blank: Blank, num_tokens: int) -> list[int] | None:
        v = self.vocabulary
        row = [v.bos, *blank.left, *self._masks(num_tokens), *blank.right]
        for piece in blank.later:
            row += [*self._masks(1), *piece]
        return [*row, v.eos]

    def context(self, blank: Blank) -> list[int]:
        return [self.vocabulary.start, self.vocabulary.bos, *blank.left]

    def following(self, blank: Blank) -> list[int]:
        end = [] if blank.later else [self.vocabulary.eos]
        return [*blank.right, *end][:FOLLOWING_TOKENS]

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        if self.noise != "infilling":
            return None
        v = self.vocabulary
        return DecoderPrompt([v.start, v.bos, *tokens], [v.bos, *tokens, v.mask, v.eos])

    def _masks(self, num_tokens: int) -> list[int]:
        """Returns the source's tokens in place of so many hidden ones."""
        mask = self.vocabulary.mask
        return {"infilling": [mask], "masking": [mask] * num_tokens, "deletion": []}[self.noise]
