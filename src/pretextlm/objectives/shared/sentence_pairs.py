"""The common base of the objectives on pairs of sentences: their reader, head, and inner objective.

A pair objective has one label per row; an inner objective predicts tokens of the same row, and its loss terms are
added: BERT joins next-sentence prediction with masked language modelling.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.sentence_pair_index import Kind
from pretextlm.data.sentence_pairs import LEAST_LENGTH, SPECIALS, PairReader
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.masked import Masked, MaskedLayout
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.objectives.registry import build, with_role
from pretextlm.objectives.shared.measures import FILL_ACCURACY, PSEUDO_PERPLEXITY, Measure
from pretextlm.scoring.blank_layout import BlankLayout

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.data.store import Split
    from pretextlm.model.config import ModelConfig


def _built(value: Any) -> Any:
    """Returns the objective of a name or of a table with a name ("masked" without one); "off" stays."""
    if isinstance(value, str) and value != "off":
        return build(value)
    if isinstance(value, Mapping):
        return build(value.get("name", "masked"), {k: v for k, v in value.items() if k != "name"})
    return value


def _named(value: Any) -> Any:
    return value if isinstance(value, str) else {"name": value.name, **value.model_dump(mode="json")}


InnerOrOff = Annotated[Objective | Literal["off"], BeforeValidator(_built), PlainSerializer(_named)]


PAIR_LOSS = Measure(
    "pair_loss", "Loss of the pairs", "The part of the loss that falls on how two passages relate, per pair."
)
PAIR_ACCURACY = Measure("pair_accuracy", "Pairs told right", "Share of pairs of passages whose relation is told right.")


class SentencePairs(Objective):
    """Base of the objectives on pairs. A subclass lists in `kinds` the relations of B to A.

    Args:
        inner: the objective on the same rows' tokens: a name, or a table of its options with its name ("masked" if
            there is none); "off" for the label of the pair alone.
        short: share of the documents that are cut into rows of random size, so that the model sees shorter rows too.
            All rows of a document have one size, as in BERT; the shorter they are, the more rows it has.
        reverse_labels: of two kinds, the first has label 1 and the second 0, for checkpoints whose head says so.
    """

    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (FILL_ACCURACY, PSEUDO_PERPLEXITY, PAIR_LOSS, PAIR_ACCURACY)
    token_types: ClassVar[int] = 2

    inner: InnerOrOff = Field(default=Masked(), description="the objective on the same rows' tokens")
    short: float = Field(default=0.1, ge=0, le=1, description="share of the documents cut into rows of random size")
    reverse_labels: bool = Field(default=False, description="the original order has label 1, not 0 (two labels only)")

    @model_validator(mode="after")
    def _inner_stays_in_place(self) -> Self:
        if self._tokens and "edits_row" not in self._tokens.roles:
            can = with_role("edits_row")
            raise ValueError(f"pairs cannot be joined with {self._tokens.name!r}; they can with: {can}")
        if getattr(self._tokens, "predict", "here") != "here":
            raise ValueError('no label may fall on [CLS] or [SEP]: give inner.predict="here"')
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The relations of B to A, with the share and the label of each."""
        raise NotImplementedError

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels of a row."""
        return {kind.label ^ self.reverse_labels: kind.name for kind in self.kinds}

    @property
    def _tokens(self) -> Objective | None:
        return None if isinstance(self.inner, str) else self.inner

    @property
    def noise_period(self) -> int:
        """That of the inner objective; pairs repeat with their masks."""
        return self._tokens.noise_period if self._tokens else 0

    @property
    def scheduled_noise(self) -> bool:
        """That of the inner objective."""
        return self._tokens.scheduled_noise if self._tokens else False

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns [CLS] before a row and [SEP] after each part."""
        return Frame(end=vocabulary.sep, lead=vocabulary.cls)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of `length`, three special tokens included.

        Raises:
            UserError: the length leaves no token for each part, or does not suit the inner objective.
        """
        if length < LEAST_LENGTH:
            raise UserError(
                f"Rows of {length} tokens have no room for two parts beside [CLS] and two [SEP].",
                f"Give a length of at least {LEAST_LENGTH}.",
            )
        if self._tokens:
            self._tokens.variants(vocabulary, length)
        return [Variant("main", raw=length - SPECIALS, length=length)]

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> PairReader:
        """Returns a reader of pairs of sentences.

        Raises:
            UserError: no pairs can be made of the split's documents, or random ones only.
        """
        self.variants(vocabulary, length)
        reader = PairReader(self.documents(split), vocabulary, length, self.kinds, self.short, self.noise_period)
        reader.index.check_relations()
        return reader

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The blank is filled with [MASK] where tokens are predicted at all; the text is the first part of a pair."""
        return MaskedLayout(vocabulary, self.frame(vocabulary), always_ends=True) if self._tokens else None

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the inner objective's batch of (B, T) pairs, with token types and the rows' labels.

        Rows without a label (text shown without a reader) stay unlabelled.
        """
        if self._tokens:
            batch = self._tokens.collate(rows, vocabulary, rng)
        else:
            batch = _untouched(rows)
        labels = np.full(len(rows), IGNORE, np.int32) if rows.row_labels is None else rows.row_labels.copy()
        if self.reverse_labels:
            labels[labels != IGNORE] ^= 1
        types = None if rows.token_type_ids is None else rows.matrix(rows.token_type_ids)
        return dataclasses.replace(batch, token_type_ids=types, row_labels=labels)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of the inner objective's targets, and of labelled rows."""
        tokens = self._tokens.counts(batch) if self._tokens else {}
        return {**tokens, "pair": int(np.count_nonzero(batch.row_labels != IGNORE))}

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns the inner objective's heads and one for the pair."""
        from pretextlm.model.heads import PairHead

        tokens = self._tokens.heads(config) if self._tokens else {}
        return {**tokens, "pair": PairHead(config, len(self.kinds))}

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of the inner objective, and of the pair head at one position per row."""
        tokens = self._tokens.flops(config, batch) if self._tokens else super().flops(config, batch)
        return tokens + 6.0 * config.hidden_size * (config.hidden_size + len(self.kinds)) * len(batch.row_labels)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the inner objective's terms, and the cross-entropy of the pairs' labels."""
        import torch
        from torch.nn import functional

        tokens = self._tokens.terms(outputs, batch) if self._tokens else {}
        logits_BC = outputs.heads["pair"](outputs.hidden_BTD[:, 0])
        labels = np.asarray(batch.row_labels, dtype=np.int64)
        labels_B = torch.from_numpy(labels).to(logits_BC.device, non_blocking=True)
        total = functional.cross_entropy(logits_BC.float(), labels_B, ignore_index=IGNORE, reduction="sum")
        correct = (logits_BC.argmax(dim=1) == labels_B).sum()
        return {**tokens, "pair": Term(total, int(np.count_nonzero(labels != IGNORE)), correct=correct)}


def _untouched(rows: Rows) -> Batch:
    """Returns the rows unchanged, with the label of the pair as the only target."""
    return Batch(
        input_ids=rows.matrix(rows.tokens).copy(),
        labels=np.full((len(rows), rows.width), IGNORE, dtype=np.int32),
        segment_ids=rows.matrix(rows.segment_ids),
        position_ids=rows.matrix(rows.position_ids),
        attention="bidirectional",
        example_ids=rows.example_ids,
    )
