"""Hide some tokens and predict them from both sides (Devlin et al. 2019).

    tokens    [CLS] 7 8 9 4 5 6 [SEP]        selected: 8 and 5
    input     [CLS] 7 [MASK] 9 4 [MASK] 6 [SEP]
    labels      -   - 8      - - 5      -   -     - : no loss
    predict="next":
    labels      -   8 -      - 5 -      -   -     the position before a hidden token predicts it

Of the selected tokens 80 % become [MASK], 10 % a random ordinary token, and 10 % stay, so that the model must keep
an opinion on every token it sees.

Paper: BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
https://arxiv.org/abs/1810.04805. Masks that differ in every epoch: RoBERTa, https://arxiv.org/abs/1907.11692. Rates
above 15 %: https://arxiv.org/abs/2202.08005. n-grams: ALBERT, https://arxiv.org/abs/1909.11942. Spans: SpanBERT,
https://arxiv.org/abs/1907.10529. Masked next-token prediction, and a rate that falls over training: GPT-BERT,
https://arxiv.org/abs/2410.24159.

Requires [CLS], [SEP], [MASK]; units above the token also need to know where words begin. Suits an encoder; with
predict="next" also a decoder, whose positions predict the token that follows. Span corruption is its
sequence-to-sequence relative; BERT joins it with next-sentence prediction, SpanBERT with a prediction from a span's
two neighbours, StructBERT with the order of words, and GPT-BERT with causal language modelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective, Published, Role
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.objectives.shared import token_selection as selection
from pretextlm.objectives.shared.measures import FILL_ACCURACY, PSEUDO_PERPLEXITY, Measure
from pretextlm.objectives.shared.token_selection import REPLACE, Selection
from pretextlm.objectives.shared.whole_words import Words, expand
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import OPEN, BlankLayout, EncoderRow, InPlaceLayout

LONGEST = {"ngram": 3, "span": 10}
"""Words of the longest n-gram (ALBERT's) and span (SpanBERT's) where none is given."""

SPAN_STOP = 0.2
"""Probability that a span ends after each of its words, before the longest is reached (SpanBERT's)."""


class Masked(Objective):
    """Masked language modelling.

    Args:
        rate: share of the ordinary tokens that are selected.
        final_rate: share at the end of training, which `rate` approaches in a straight line.
        count: "exact" selects k = ⌊rate · n + U[0, 1)⌋ of a row's n ordinary tokens, at least one: the mean rate is
            exact (where rate · n ≥ 1) and rows differ by at most one. "bernoulli" selects each by itself.
        unit: "token"; "word"; "ngram" for 1 to 3 words in a row, n with probability ∝ 1/n; "span" for
            1 to 10 words, on average 3.8. With exact counts, words are selected in random order, and one that would
            exceed the count is skipped (BERT's rule); n-grams are shortened until they fit. Only where no word of the
            row fits, the first in random order is selected all the same. The last span is cut where the count is
            reached, so that it is met exactly (SpanBERT's rule).
        longest_span: words of the longest n-gram or span.
        replace: "token" decides for each token of a word or span by itself, "unit" for all of them together.
        predict: "here", at the hidden token's own position, or "next", at the position before it. The first token of a
            segment has none before it and is then not selected, nor is the rest of its word with units above the token.
        static_masks: 0 gives a row new masks in every epoch; k gives it k different ones, in turn.
        mask_share, random_share: of the selected tokens, how many become [MASK] or a random ordinary token; the rest
            stay.

    Raises:
        UserError: a rate outside (0, 1], a negative share, shares above 1 together, a longest span for a unit that has
            none, n-grams or spans without an exact count (through `parse`).
    """

    name: ClassVar[str] = "masked"
    title: ClassVar[str] = "Masked language modelling"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = "Some tokens are hidden, and the model restores each of them from the text on both sides."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    measures: ClassVar[tuple[Measure, ...]] = (FILL_ACCURACY, PSEUDO_PERPLEXITY)
    roles: ClassVar[frozenset[Role]] = frozenset({"hides_in_place", "edits_row"})
    published_as: ClassVar[tuple[Published, ...]] = (Published(architecture="encoder"),)

    rate: float = Field(default=0.15, gt=0, le=1, description="share of the tokens that are selected")
    final_rate: float | None = Field(default=None, gt=0, le=1, description="share at the end of training, if another")
    count: Literal["exact", "bernoulli"] = Field(default="exact", description="the same number in every row, or not")
    unit: Literal["token", "word", "ngram", "span"] = Field(
        default="token", description="select tokens, words, a few words in a row, or longer spans"
    )
    longest_span: int | None = Field(
        default=None, ge=1, le=100, description="words of the longest n-gram (else 3) or span (else 10)"
    )
    replace: Literal["token", "unit"] = Field(
        default="token", description="replace each token by itself, or a word or span alike"
    )
    predict: Literal["here", "next"] = Field(
        default="here", description="predict a hidden token at its place, or at the one before"
    )
    static_masks: int = Field(default=0, ge=0, description="masks of a row that take turns; 0: new ones in every epoch")
    mask_share: float = Field(default=0.8, ge=0, le=1, description="of the selected, share that becomes [MASK]")
    random_share: float = Field(default=0.1, ge=0, le=1, description="of the selected, share that becomes random")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} exceed 1 together")
        if self.longest_span is not None and self.unit not in LONGEST:
            raise ValueError(f'longest_span is of unit = "ngram" or "span", not "{self.unit}"')
        if self.count == "bernoulli" and self.unit in LONGEST:
            raise ValueError(f'unit "{self.unit}" is selected by count = "exact" alone')
        return self

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the encoder, and also the decoder if positions predict the next token."""
        return self.architectures if self.predict == "next" else ("encoder",)

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "bidirectional"

    @property
    def noise_period(self) -> int:
        """Epochs after which the masks repeat."""
        return self.static_masks

    @property
    def scheduled_noise(self) -> bool:
        """Whether the rate changes over training."""
        return self.final_rate is not None

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns [CLS] before every row and [SEP] after every document, or what a published tokenizer adds."""
        template = vocabulary.template
        if template is None:
            return Frame(end=vocabulary.sep, lead=vocabulary.cls)
        return Frame(end=next(iter(template.after), None), lead=next(iter(template.before), None))

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of `length`, [CLS] included.

        Raises:
            UserError: the length is below 2, or there is no token to replace others by.
        """
        if length < 2:
            raise UserError(
                f"Masked rows of {length} tokens have no room beside [CLS].", "Give a length of at least 2."
            )
        self.check(vocabulary)
        return [Variant("main", raw=length - 1, length=length, restart=self.static_masks > 0)]

    def check(self, vocabulary: Vocabulary) -> None:
        """Checks that there are tokens to replace others by.

        Raises:
            UserError: there are none.
        """
        if self.random_share and not len(vocabulary.ordinary):
            raise UserError("The vocabulary has no ordinary token to replace others by.", "Set random_share=0.")

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The blank is filled with [MASK]."""
        return MaskedLayout(vocabulary, self.frame(vocabulary), predicts_next=self.predict == "next")

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, T) inputs with masks, and labels at the selected tokens; documents do not see each other.

        Token types and labels of rows, which a reader of sentence pairs sets, are copied to the batch.
        """
        chosen = self.select(rows, vocabulary.is_special.take(rows.matrix(rows.tokens)), rng)
        originals = rows.tokens.take(chosen.places)
        input_ids, labels = rows.tokens.copy(), np.full(len(rows.tokens), IGNORE, dtype=np.int32)
        input_ids[chosen.places] = self._replacements(originals, chosen, vocabulary, rng)
        labels[chosen.places if self.predict == "here" else chosen.places - 1] = originals
        types = rows.token_type_ids
        return Batch(
            input_ids=rows.matrix(input_ids),
            labels=rows.matrix(labels),
            segment_ids=rows.matrix(rows.segment_ids),
            position_ids=rows.matrix(rows.position_ids),
            attention="bidirectional",
            token_type_ids=None if types is None else rows.matrix(types),
            row_labels=rows.row_labels,
            example_ids=rows.example_ids,
        )

    def select(self, rows: Rows, special: NDArray[np.bool_], rng: CounterRNG) -> Selection:
        """Returns the tokens of (B, T) rows that are hidden; none where `special` (B, T) is True."""
        excluded = special if self.predict == "here" else self._excluded(rows, special)
        rates = self._rates(rows)
        if self.count == "bernoulli":
            if self.unit == "token":
                return selection.sample_tokens(excluded, rates, rng)
            return selection.sample_words(Words.of(rows, excluded), rates, rng)
        counts = selection.selection_counts(excluded, rates, rng)
        if self.unit == "token":
            return selection.select_tokens(excluded, counts, rng)
        words = Words.of(rows, excluded)
        if self.unit == "word":
            return selection.select_words(words, counts, rng)
        longest = self.longest_span or LONGEST[self.unit]
        if self.unit == "ngram":
            return selection.select_ngrams(rows, words, counts, longest, rng)
        return selection.select_spans(rows, words, excluded, counts, longest, SPAN_STOP, rng)

    def _excluded(self, rows: Rows, special: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns special tokens and the first of each segment; with units above the token, its first word."""
        opening = rows.matrix(rows.position_ids) == 0
        excluded: NDArray[np.bool_] = special | opening
        if self.unit != "token":
            words = Words.of(rows, special)
            first = np.flatnonzero(words.begins & opening)
            excluded.reshape(-1)[expand(first, words.lengths.take(first), len(rows), rows.width)[0]] = True
        return excluded

    def _rates(self, rows: Rows) -> float | NDArray[np.float64]:
        """Returns the rate of all rows, or of each row (B,) where it changes over training."""
        if self.final_rate is None or rows.progress is None:
            return self.rate if self.final_rate is None else self.final_rate
        rates: NDArray[np.float64] = self.rate + (self.final_rate - self.rate) * rows.progress
        return rates

    def _replacements(
        self, originals: NDArray[np.int32], chosen: Selection, vocabulary: Vocabulary, rng: CounterRNG
    ) -> NDArray[np.int32]:
        """Returns the input at the selected positions, decided by 64 random bits for each.

        With replace="unit", the bits of a unit's first token decide for all of it: for units of 2 and 3 tokens the
        first tokens are 0 and 2 (np.cumsum([2, 3]) - [2, 3]), each repeated 2 and 3 times.
        """
        draws = rng.bits(REPLACE, int(chosen.counts.max(initial=0)))
        draws = np.compress(selection.first_columns(chosen.counts).reshape(-1), draws)
        chance = draws >> np.uint64(32)
        if self.replace == "unit" and chosen.units is not None:
            chance = np.repeat(chance[np.cumsum(chosen.units) - chosen.units], chosen.units)
        return selection.replacements(originals, draws, self.mask_share, self.random_share, vocabulary, chance)


class MaskedLayout(InPlaceLayout):
    """Open places are [MASK], predicted from both sides.

        [CLS] The [MASK] sat on the mat. [SEP]             one token
        [CLS] The [MASK] [MASK] sat on the mat. [SEP]      two

    All of the text has token type 0.

    Args:
        frame: the special tokens around a row and a document.
        predicts_next: a token is predicted at the place before it.
        always_ends: the row ends with the document's last token even where the text does not; so do rows of two parts,
            each of which ends with it.
        continues: a decoder so trained continues texts, too.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        frame: Frame,
        predicts_next: bool = False,
        always_ends: bool = False,
        continues: bool = False,
    ) -> None:
        super().__init__(vocabulary)
        self.frame, self.predicts_next = frame, predicts_next
        self.always_ends, self.continues = always_ends, continues

    def row(self, blank: Blank, candidate: Sequence[int]) -> EncoderRow:
        mask, frame, template = self.vocabulary.mask, self.frame, self.vocabulary.template
        begin = frame.begin if blank.starts_document or not blank.left else None
        opening = [token for token in (frame.lead, begin) if token is not None]
        closing = [] if frame.end is None else [frame.end]
        if template is not None and not self.continues:
            opening, closing = [*template.before], [*template.after]
        before = [*opening, *blank.left]
        row = [*before, *(mask if token == OPEN else token for token in candidate), *blank.right]
        for piece in blank.later:
            row += [mask, *piece]
        if blank.ends_document or self.always_ends:
            row += closing
        first = len(before) - self.predicts_next
        return EncoderRow(row, {place: first + place for place in range(len(candidate))})

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        begin = self.frame.begin
        opening = [] if begin is None else [begin]
        return DecoderPrompt([*opening, *tokens] or [self.vocabulary.bos]) if self.continues else None
