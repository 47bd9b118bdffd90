"""Hide some tokens and shuffle some others, and predict both (Wang et al. 2019).

    tokens            [CLS] a b c d e f [SEP]      hidden: b; shuffled: d e f
    input             [CLS] a [M] c f d e [SEP]
    labels              -   - b - - - -   -
    shuffled labels     -   - - - d e f   -

Masked tokens between visible words depend little on word order. Here the model must also detect a wrong order and
predict the original one.

Paper: StructBERT: Incorporating Language Structures into Pre-training for Deep Language Understanding,
https://arxiv.org/abs/1908.04577. Its pre-training code is not released, and "5 % of the trigrams" can be read in two
ways; here trigrams are counted without overlap, so that 5 % of the visible tokens are in a shuffled one. Each is put
into one of its six orders with equal probability: one in six stays as it was, and is predicted too. The two losses are
means over their own targets with equal weights.

Requires the tokens of the inner objective. Suits an encoder. The inner objective hides tokens in place (masked,
bimodal_code); StructBERT adds the order of sentences, whose inner objective this can be.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Role
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.objectives.registry import ObjectiveField, with_role
from pretextlm.objectives.shared.measures import FILL_ACCURACY, PSEUDO_PERPLEXITY, Measure
from pretextlm.objectives.shared.token_selection import RandomOrder
from pretextlm.objectives.shared.wrapper import Wrapper

if TYPE_CHECKING:
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.store import Split
    from pretextlm.model.config import ModelConfig

HIDE, COUNT, PLACES = range(3)
"""Streams of random numbers: the inner objective's, the number of trigrams, and which ones in which order."""

SIZE = 3
"""Tokens that are shuffled together (K in the paper)."""

ORDERS = np.array([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]])

I64 = NDArray[np.int64]


ORDER_LOSS = Measure(
    "order_loss", "Loss of the order", "The part of the loss that falls on shuffled tokens, per token."
)


class WordStructure(Wrapper):
    """The word structural objective over an objective that hides tokens in place.

    Args:
        inner: which tokens are hidden, and how.
        share: of the trigrams of visible ordinary tokens, counted without overlap, how many are shuffled: of a row
            with n such tokens, ⌊share · n / 3 + U[0, 1)⌋. None has a hidden or special token or crosses a document's
            end. Where hidden tokens leave less room, as many as fit.
        weight: of the loss of the shuffled tokens; the inner objective's has weight 1.
    """

    name: ClassVar[str] = "word_structure"
    title: ClassVar[str] = "Word structural objective"
    paper: ClassVar[str] = "Wang et al. 2019, https://arxiv.org/abs/1908.04577"
    summary: ClassVar[str] = "Some tokens are hidden and some runs of three are shuffled; the model restores both."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (FILL_ACCURACY, PSEUDO_PERPLEXITY, ORDER_LOSS)
    roles: ClassVar[frozenset[Role]] = frozenset({"edits_row"})

    inner: ObjectiveField = Field(default=Masked(), description="the objective that hides tokens")
    share: float = Field(default=0.05, gt=0, le=1, description="share of the visible trigrams that is shuffled")
    weight: float = Field(default=1.0, gt=0, description="weight of the loss of the shuffled tokens")

    @model_validator(mode="after")
    def _inner_hides_in_place(self) -> Self:
        if "hides_in_place" not in self.inner.roles:
            can = with_role("hides_in_place")
            raise ValueError(f"tokens cannot be hidden by {self.inner.name!r}; they can by: {can}")
        if getattr(self.inner, "predict", "here") != "here":
            raise ValueError('shuffled tokens are predicted in place: give inner.predict="here"')
        return self

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns the rows of the inner objective.

        Raises:
            UserError: the length leaves no trigram beside [CLS].
        """
        if length <= SIZE:
            raise UserError(f"Rows of {length} tokens have no room for a trigram.", f"Give at least {SIZE + 1}.")
        return super().variants(vocabulary, length)

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns the reader of the inner objective."""
        self.variants(vocabulary, length)
        return super().reader(split, vocabulary, length)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the inner batch with some visible trigrams shuffled, and labels for them in `shuffled_labels`."""
        batch = self.inner.collate(rows, vocabulary, rng.fork(HIDE))
        visible = (batch.labels == IGNORE) & ~vocabulary.is_special.take(rows.matrix(rows.tokens))
        counts = np.floor(self.share * np.count_nonzero(visible, axis=1) / SIZE + rng.uniform(COUNT, 1)[:, 0]).astype(
            np.int64
        )
        starts, orders = self._trigrams(rows, visible, counts, rng.fork(PLACES))
        places = starts[:, None] + np.arange(SIZE)
        labels = np.full(len(rows.tokens), IGNORE, dtype=np.int32)
        labels[places] = rows.tokens[places]
        input_ids = batch.input_ids.flatten()
        input_ids[places] = rows.tokens[starts[:, None] + ORDERS[orders]]
        return dataclasses.replace(batch, input_ids=rows.matrix(input_ids), shuffled_labels=rows.matrix(labels))

    def _trigrams(self, rows: Rows, visible: NDArray[np.bool_], counts: I64, rng: CounterRNG) -> tuple[I64, I64]:
        """Returns the flat positions where `counts` (B,) trigrams of each row begin, and the order of each.

        They are chosen in turns from all visible trigrams; one that overlaps an earlier one is skipped.
        """
        # `free[t]`: tokens t and t + 1 are visible and of one document; `begins[t]`: so are t, t + 1 and t + 2.
        free = visible.copy()
        free[:, :-1] &= visible[:, 1:] & (rows.matrix(rows.position_ids)[:, 1:] > 0)
        begins = free.copy()
        begins[:, :-1] &= free[:, 1:]
        begins[:, -2:] = False
        candidates = np.flatnonzero(begins)
        per_row = np.count_nonzero(begins, axis=1)
        base = np.cumsum(per_row) - per_row
        taken = np.zeros(begins.size, dtype=bool)
        starts, orders = [candidates[:0]], [candidates[:0]]
        remaining = counts.copy()
        random_order = RandomOrder(rng, per_row)
        active = np.flatnonzero((remaining > 0) & (per_row > 0))
        while len(active):
            number, chance = random_order.next(active)
            places = candidates[base[active] + number][:, None] + np.arange(SIZE)
            fits = np.flatnonzero(~taken.take(places).any(axis=1))
            taken[places[fits]] = True
            remaining[active[fits]] -= 1
            starts.append(places[fits, 0])
            orders.append((chance[fits] * np.uint64(len(ORDERS)) >> np.uint64(32)).astype(np.int64))
            active = active[(remaining[active] > 0) & (random_order.turn < per_row[active])]
        return np.concatenate(starts), np.concatenate(orders)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of hidden and of shuffled tokens."""
        return {**self.inner.counts(batch), "order": int(np.count_nonzero(batch.shuffled_labels != IGNORE))}

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of one pass with the head at hidden and at shuffled tokens."""
        from pretextlm.model.flops import training_flops

        return training_flops(config, batch, sum(self.counts(batch).values()))

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy of the hidden and of the shuffled tokens."""
        order = outputs.cross_entropy_at(batch.shuffled_labels)
        count = int(np.count_nonzero(batch.shuffled_labels != IGNORE))
        return {**self.inner.terms(outputs, batch), "order": Term(order, count, self.weight)}
