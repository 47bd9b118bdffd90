"""Hide some tokens and predict them from both sides (Devlin et al. 2019).

    tokens    [CLS] 7 8 9 4 5 6 [SEP]        selected: 8 and 5
    input     [CLS] 7 [MASK] 9 4 [MASK] 6 [SEP]
    labels      -   - 8      - - 5      -   -     - : no loss

Of the selected tokens 80 % become [MASK], 10 % a random ordinary token, and 10 % stay, so that the model must keep
an opinion on every token it sees.

Paper: BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
https://arxiv.org/abs/1810.04805. Masks that differ in every epoch: RoBERTa, https://arxiv.org/abs/1907.11692. Rates
above 15 %: https://arxiv.org/abs/2202.08005.

Requires [CLS], [SEP], [MASK]; the word unit also needs to know where words begin. Suits an encoder. Span corruption
is its sequence-to-sequence relative; BERT joins it with next-sentence prediction.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import Architecture, Frame, Objective, Variant
from pretextlm.objectives.words import Words, expand, greedy

COUNT, ORDER, REPLACE = range(3)
"""Streams of random numbers: how many, which, and what stands there instead."""

I64 = NDArray[np.int64]


class Masked(Objective):
    """Masked language modelling.

    Args:
        rate: share of the ordinary tokens that are selected.
        count: "exact" selects k = ⌊rate · n + U[0, 1)⌋ of a row's n ordinary tokens, at least one: the mean rate is
            exact (where rate · n ≥ 1) and rows differ by at most one. "bernoulli" selects each by itself.
        unit: "token", or "word" for whole words. With exact counts, words are taken in random order, and one that
            would go over the count is passed over (BERT's rule). Only where no word of the row fits, the first in
            random order is taken all the same.
        mask_share, random_share: of the selected tokens, how many become [MASK] or a random ordinary token, decided
            for each token; the rest stay.

    Raises:
        UserError: a rate outside (0, 1], a negative share, shares above 1 together (through `parse`).
    """

    name: ClassVar[str] = "masked"
    title: ClassVar[str] = "Masked language modelling"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    learns: ClassVar[str] = "to fill a gap from both its sides: what a word means where it stands."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)

    rate: float = Field(default=0.15, gt=0, le=1, description="share of the tokens that are selected")
    count: Literal["exact", "bernoulli"] = Field(default="exact", description="the same number in every row, or not")
    unit: Literal["token", "word"] = Field(default="token", description="select tokens or whole words")
    mask_share: float = Field(default=0.8, ge=0, le=1, description="of the selected, share that becomes [MASK]")
    random_share: float = Field(default=0.1, ge=0, le=1, description="of the selected, share that becomes random")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise ValueError(f"mask_share {self.mask_share} and random_share {self.random_share} exceed 1 together")
        return self

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """[CLS] before every row and [SEP] after every document."""
        return Frame(end=vocabulary.sep, lead=vocabulary.cls)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Rows of `length`, [CLS] among them.

        Raises UserError if the length is below 2 or there is no token to replace others by.
        """
        if length < 2:
            raise UserError(
                f"Masked rows of {length} tokens have no room beside [CLS].", "Give a length of at least 2."
            )
        if self.random_share and not len(vocabulary.ordinary):
            raise UserError("The vocabulary has no ordinary token to replace others by.", "Set random_share=0.")
        return [Variant("main", raw=length - 1, length=length)]

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: Keyed) -> Batch:
        """(B, T) tokens → inputs with masks, labels at the selected tokens; documents do not see each other."""
        special = vocabulary.is_special.take(rows.matrix(rows.tokens))
        if self.unit == "token":
            selected, counts = self._select_tokens(special, rng)
        else:
            selected, counts = self._select_words(Words.of(rows, special), special, rng)
        originals = rows.tokens.take(selected)
        input_ids, labels = rows.tokens.copy(), np.full(len(rows.tokens), IGNORE, dtype=np.int32)
        input_ids[selected] = self._replacements(originals, counts, vocabulary, rng)
        labels[selected] = originals
        return Batch(
            input_ids=rows.matrix(input_ids),
            labels=rows.matrix(labels),
            segment_ids=rows.matrix(rows.segment_ids),
            position_ids=rows.matrix(rows.position_ids),
            attention="bidirectional",
            example_ids=rows.example_ids,
        )

    def _budget(self, special: NDArray[np.bool_], rng: Keyed) -> I64:
        """(B,) how many tokens to select in each row: probabilistic rounding makes the mean rate exact."""
        ordinary = special.shape[1] - np.count_nonzero(special, axis=1)
        wanted = np.floor(self.rate * ordinary + rng.uniform(COUNT, 1)[:, 0]).astype(np.int64)
        budget: I64 = np.minimum(np.maximum(wanted, 1), ordinary)
        return budget

    def _select_tokens(self, special: NDArray[np.bool_], rng: Keyed) -> tuple[I64, I64]:
        """Flat places of the selected tokens, row by row, and how many each row has (B,)."""
        width = special.shape[1]
        if self.count == "bernoulli":
            chosen = self._toss(rng, width) & ~special
            return np.flatnonzero(chosen), np.count_nonzero(chosen, axis=1)
        counts = self._budget(special, rng)
        columns = rng.order(ORDER, width, int(counts.max(initial=0)), exclude=special)
        columns += (np.arange(len(special)) * width)[:, None]
        return np.compress(_first(counts).reshape(-1), columns), counts

    def _select_words(self, words: Words, special: NDArray[np.bool_], rng: Keyed) -> tuple[I64, I64]:
        """The same, by whole words."""
        rows, width = special.shape
        if self.count == "bernoulli":
            chosen = np.flatnonzero(self._toss(rng, width) & words.begins)
            return expand(chosen, words.lengths.take(chosen), rows, width)
        most = int(np.count_nonzero(words.begins, axis=1).max(initial=0))
        order = rng.order(ORDER, width, most, exclude=~words.begins)
        order += (np.arange(rows) * width)[:, None]
        lengths = words.lengths.take(order)
        taken = greedy(lengths, self._budget(special, rng)).reshape(-1)
        return expand(np.compress(taken, order), np.compress(taken, lengths), rows, width)

    def _toss(self, rng: Keyed, width: int) -> NDArray[np.bool_]:
        """(B, width) a coin for each position that shows True with probability `rate`."""
        return (rng.bits(ORDER, width) >> np.uint64(11)) < np.uint64(round(self.rate * 2**53))

    def _replacements(
        self, originals: NDArray[np.int32], counts: I64, vocabulary: Vocabulary, rng: Keyed
    ) -> NDArray[np.int32]:
        """What stands in the input at the selected places: one 64-bit draw for each, its halves used apart."""
        draws = np.compress(_first(counts).reshape(-1), rng.bits(REPLACE, int(counts.max(initial=0))))
        chance = draws >> np.uint64(32)
        masked = chance < np.uint64(round(self.mask_share * 2**32))
        replaced = chance < np.uint64(round(min(self.mask_share + self.random_share, 1) * 2**32))
        values = np.where(masked, np.int32(vocabulary.mask), originals)
        random = np.flatnonzero(replaced & ~masked)
        choice = (draws[random] & np.uint64(0xFFFFFFFF)) * np.uint64(len(vocabulary.ordinary)) >> np.uint64(32)
        values[random] = vocabulary.ordinary.take(choice.astype(np.int64))
        return values


def _first(counts: I64) -> NDArray[np.bool_]:
    """(B, max) True in the first counts[b] columns of row b."""
    return np.arange(int(counts.max(initial=0))) < counts[:, None]
