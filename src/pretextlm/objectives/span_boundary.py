"""Hide spans, and predict each of their tokens a second time from the span's two neighbours alone (Joshi et al. 2020).

    tokens    [CLS] a b c d e f [SEP]        span: c d
    input     [CLS] a b [M] [M] e f [SEP]
    labels      -   - -  c   d  - -   -      as masked language modelling
    left        -   - -  2   2  - -   -      column of b
    right       -   - -  5   5  - -   -      column of e
    c again     from the states of b and e and "first of its span"; d from theirs and "second of its span"

So the states beside a span are trained to represent its content.

Paper: SpanBERT: Improving Pre-training by Representing and Predicting Spans, https://arxiv.org/abs/1907.10529. As in
its released code, spans that touch are one span, the state before and after it is that of a visible ordinary token (so
a span at the beginning or end of a document, or of the row, has no such targets), and a span's first 20 tokens have
them. All tokens of a span have the same kind of replacement. The two losses are means over their own targets, and
their sum is minimised.

Requires the tokens of masked language modelling, and where words begin. Suits an encoder. It is masked language
modelling with unit="span" and a second loss.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Role
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.objectives.shared.measures import Measure
from pretextlm.objectives.shared.token_selection import run_lengths

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.model.config import ModelConfig

LONGEST_TARGET = 20
"""Most tokens of a span that are predicted from its neighbours: the positions of the head."""

POSITION_SIZE = 200
"""Width of the embedding of a token's position in its span."""


SPAN_BOUNDARY_LOSS = Measure(
    "span_boundary_loss",
    "Loss from the boundaries",
    "The part of the loss from the words beside a span, per token of it.",
)


class SpanBoundary(Masked):
    """Span masking with the span-boundary objective. The further options are those of masked language modelling.

    Args:
        unit: that is hidden; neighbouring words and n-grams form one span too.
        replace: "unit" replaces all tokens of a span in the same way.
        weight: of the loss from the neighbours; the masked loss has weight 1.
    """

    name: ClassVar[str] = "span_boundary"
    title: ClassVar[str] = "Span-boundary objective"
    paper: ClassVar[str] = "Joshi et al. 2020, https://arxiv.org/abs/1907.10529"
    summary: ClassVar[str] = (
        "Whole spans are hidden, and each of their tokens is restored twice: from its place, and from the two "
        "words beside the span alone."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (*Masked.measures, SPAN_BOUNDARY_LOSS)
    roles: ClassVar[frozenset[Role]] = frozenset({"edits_row"})

    unit: Literal["word", "ngram", "span"] = Field(
        default="span", description="hide longer spans, words or a few words in a row"
    )
    replace: Literal["token", "unit"] = Field(
        default="unit", description="decide the replacement for a span, or for each token"
    )
    predict: Literal["here"] = Field(default="here", description="hidden tokens are predicted in place")
    weight: float = Field(default=1.0, gt=0, description="weight of the loss from a span's neighbours")

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns masked rows, with the columns of its span's neighbours for every hidden token that has them."""
        batch = super().collate(rows, vocabulary, rng)
        special = vocabulary.is_special.take(rows.tokens)
        left, right = boundaries(np.flatnonzero(batch.labels != IGNORE), special, rows)
        return dataclasses.replace(batch, left=rows.matrix(left), right=rows.matrix(right))

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of hidden tokens, and of those that are also predicted from the neighbours."""
        return {**super().counts(batch), "span_boundary": int(np.count_nonzero(batch.left != IGNORE))}

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns the head that computes a state for the language-model head from two neighbours and a position."""
        from pretextlm.model.heads import SpanBoundaryHead

        return {"span_boundary": SpanBoundaryHead(config, LONGEST_TARGET, POSITION_SIZE)}

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of the masked model, and of the head with its targets."""
        from pretextlm.model.flops import training_flops

        counts = self.counts(batch)
        width = config.hidden_size
        head = 6.0 * counts["span_boundary"] * (3 * width + POSITION_SIZE) * width
        return head + training_flops(config, batch, sum(counts.values()))

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy of the hidden tokens from their own states, and from those beside their span."""
        left, width = batch.left.reshape(-1), batch.left.shape[1]
        places = np.flatnonzero(left != IGNORE)
        row = places // width * width
        before, after = row + left[places], row + batch.right.reshape(-1)[places]
        nth = places - before - 1
        states = outputs.heads["span_boundary"](outputs.hidden_at(before), outputs.hidden_at(after), nth)
        total = outputs.cross_entropy_of(states, batch.labels.reshape(-1)[places])
        return {**super().terms(outputs, batch), "span_boundary": Term(total, len(places), self.weight)}


def boundaries(
    hidden: NDArray[np.int64], special: NDArray[np.bool_], rows: Rows
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Returns (N,) the columns of the visible tokens before and after each hidden token's span; IGNORE without one.

    Args:
        hidden: ascending flat positions of the hidden tokens; neighbours of one document are one span.
        special: (N,) True at special tokens: a span beside one has no neighbours.
        rows: of the batch.
    """
    width = rows.width
    left = np.full(len(special), IGNORE, dtype=np.int32)
    right = left.copy()
    lengths = run_lengths(hidden, rows)
    last = hidden[np.cumsum(lengths) - 1]
    first = last - lengths + 1
    before, after = first - 1, last + 1
    # Neighbours must be in the same row: a span at column 0 has none before it, one that ends at column T - 1 none
    # after.
    inside = np.flatnonzero((first % width > 0) & (after % width > 0))
    before, after = before[inside], after[inside]
    document = rows.segment_ids.take(first[inside])
    beside = ~special[before] & ~special[after]
    beside &= (rows.segment_ids[before] == document) & (rows.segment_ids[after] == document)
    kept = inside[beside]
    count = np.minimum(lengths[kept], LONGEST_TARGET)
    places = np.repeat(first[kept] - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    left[places] = np.repeat(before[beside] % width, count)
    right[places] = np.repeat(after[beside] % width, count)
    return left, right
