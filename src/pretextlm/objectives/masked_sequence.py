"""Hide one long span of a text from the encoder, and predict it with the decoder (Song et al. 2019).

    tokens            7 8 5 3 9 4 6 2               the span: 5 3 9 4
    encoder           7 8 [MASK] [MASK] 1 [MASK] 6 2
    decoder input     [PAD] 5 3 9                   positions 2 3 4 5
    decoder labels      5 3 9 4

Of the span, 80 % become [MASK] for the encoder, 10 % a random ordinary token, and 10 % stay, as in masked language
modelling. The decoder reads only the span, so that it must attend to the encoder for the rest of the text.

Paper: MASS: Masked Sequence to Sequence Pre-training for Language Generation, https://arxiv.org/abs/1905.02450. It
hides about one half; its released code lets a fifth of the spans begin with the text and a fifth end with it
(start="ends").

Requires [MASK] and the pad id that starts a decoder. Suits an encoder-decoder. Rows are plain text, documents one after
another. Span corruption hides many spans, each under one sentinel: there the model must find the length of each, here
it is visible, and the encoder's row stays as long as the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.layout import I32, I64
from pretextlm.objectives.shared.measures import PERPLEXITY, TOKEN_ACCURACY, Measure
from pretextlm.objectives.shared.token_selection import replacements
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import FOLLOWING_TOKENS, BlankLayout, ContinuationLayout

START, SIDE, REPLACE = range(3)
"""Streams of random numbers: where the span begins, whether at an end, and the replacements."""

AT_AN_END = 0.2
"""Share of the spans that begin with the text, and share that end with it, with start="ends"."""


class MaskedSequence(Objective):
    """Masked sequence-to-sequence modelling: one span of every row, always of the same length.

    Args:
        rate: share of the tokens that are hidden.
        start: "uniform": the span begins at a uniformly random position; "ends": in 20 % of the rows with the text, in
            20 % it ends with the text, else anywhere.
        mask_share, random_share: of the hidden tokens, how many the encoder sees as [MASK] or as a random ordinary
            token, decided for each token; the rest stay.

    Raises:
        UserError: shares above 1 together (through `parse`).
    """

    name: ClassVar[str] = "masked_sequence"
    title: ClassVar[str] = "Masked sequence to sequence"
    paper: ClassVar[str] = "Song et al. 2019, https://arxiv.org/abs/1905.02450"
    summary: ClassVar[str] = "One long stretch of a text is hidden from the encoder, and the decoder writes it."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder",)
    measures: ClassVar[tuple[Measure, ...]] = (PERPLEXITY, TOKEN_ACCURACY)

    rate: float = Field(default=0.5, gt=0, le=1, description="share of the tokens that are hidden")
    start: Literal["uniform", "ends"] = Field(
        default="uniform", description="the span begins anywhere, or more often at the ends"
    )
    mask_share: float = Field(default=0.8, ge=0, le=1, description="of the hidden, share that becomes [MASK]")
    random_share: float = Field(default=0.1, ge=0, le=1, description="of the hidden, share that becomes random")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} exceed 1 together")
        return self

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns no special tokens: documents follow each other."""
        return Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of `length` for the encoder, and of the span for the decoder.

        Raises:
            UserError: the length is below 2, or there is no token to replace others by.
        """
        if length < 2:
            raise UserError(
                f"Rows of {length} tokens have no text beside the hidden span.", "Give a length of at least 2."
            )
        if self.random_share and not len(vocabulary.ordinary):
            raise UserError("The vocabulary has no ordinary token to replace others by.", "Set random_share=0.")
        return [Variant("main", raw=length, length=length, decoder_length=self.hidden(length))]

    def hidden(self, length: int) -> int:
        """Returns the tokens of the span in a text of `length` tokens."""
        return max(1, round(self.rate * length))

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The blank lies in a hidden stretch, which the decoder writes."""
        return StretchLayout(vocabulary, self.hidden)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns encoder rows (B, T) and decoder rows (B, S). A row that ends in padding is a shorter text."""

        def lay_out(tokens: I32, example_ids: I64, rng: CounterRNG) -> Batch:
            count = self.hidden(tokens.shape[1])
            positions = self._starts(tokens.shape[1] - count, rng) + np.arange(count)
            labels = np.take_along_axis(tokens, positions, axis=1)
            draws = rng.bits(REPLACE, count).reshape(-1)
            seen = replacements(labels.reshape(-1), draws, self.mask_share, self.random_share, vocabulary)
            source = tokens.copy()
            np.put_along_axis(source, positions, seen.reshape(labels.shape), axis=1)
            batch = layout.encoder_decoder(source, labels, vocabulary, example_ids)
            return dataclasses.replace(batch, decoder_position_ids=positions.astype(np.int32))

        return layout.each_length(rows, vocabulary, rng, lay_out)

    def _starts(self, last: int, rng: CounterRNG) -> I64:
        """Returns (B, 1) where the span begins, in 0 … last."""
        starts = rng.integers(START, 1, last + 1)
        if self.start == "ends":
            side = rng.uniform(SIDE, 1)
            starts[side < AT_AN_END] = 0
            starts[side >= 1 - AT_AN_END] = last
        return starts


class StretchLayout(ContinuationLayout):
    """The blank lies in a hidden stretch, as long as those of training, which the decoder writes.

        encoder    The [MASK] [MASK] [MASK] [MASK] mat .
        decoder    [PAD] | cat sat on the                       positions 1 2 3 4

    The stretch begins with the blank, or before it where too little text follows: the decoder is then given the
    stretch's first tokens. A candidate is scored with the rest of the stretch. The encoder sees how many tokens are
    missing, so every number is tried.

    Args:
        hidden: tokens of the stretch in a text of so many tokens.
    """

    source_shows_length: bool = True

    def __init__(self, vocabulary: Vocabulary, hidden: Callable[[int], int]) -> None:
        super().__init__(vocabulary)
        self._hidden = hidden

    def source(self, blank: Blank, num_tokens: int) -> list[int] | None:
        mask, before, after = self.vocabulary.mask, self._before(blank), len(self.following(blank))
        masks = [mask] * (before + num_tokens + after)
        row = [*blank.left[: len(blank.left) - before], *masks, *blank.right[after:]]
        for piece in blank.later:
            row += [mask, *piece]
        return row

    def context(self, blank: Blank) -> list[int]:
        return [self.vocabulary.start, *blank.left[self.first_position(blank) :]]

    def following(self, blank: Blank) -> list[int]:
        return [*blank.right[: min(FOLLOWING_TOKENS, self._stretch(blank))]]

    def first_position(self, blank: Blank) -> int:
        return len(blank.left) - self._before(blank)

    def _stretch(self, blank: Blank) -> int:
        """Returns how many tokens around the blank are hidden along with it."""
        return self._hidden(len(blank.left) + len(blank.right))

    def _before(self, blank: Blank) -> int:
        """Returns how many of these are before the blank."""
        return min(len(blank.left), self._stretch(blank) - len(self.following(blank)))
