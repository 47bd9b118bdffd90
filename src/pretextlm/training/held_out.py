"""The held-out documents on which models are evaluated, read as rows of an objective, document by document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import CounterRNG
from pretextlm.data.document_rows import by_document
from pretextlm.data.interleave import InterleavedReader
from pretextlm.data.row_reader import DocumentRowReader, RowReader
from pretextlm.data.seeded_sample import sample_documents, sampled, sampled_rows
from pretextlm.errors import UserError
from pretextlm.metric import Clusters

if TYPE_CHECKING:
    from pretextlm.batch import Batch
    from pretextlm.data.store import Split
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.training.recipe import EvaluationConfig

I64 = NDArray[np.int64]

MOST_TOKENS = 32_768
"""Number of tokens read if the sampled documents have no row for the objective and rows of all are sampled."""

BATCH_TOKENS = 2048
"""Tokens of a batch, at least one row; all of one document or group of short documents."""


def held_out_documents(split: Split, settings: EvaluationConfig) -> Split:
    """Samples documents of a split by the settings' seed: complete ones, in proportion over its sources.

    Raises:
        UserError: the split holds no text.
    """
    if not split.num_tokens:
        raise UserError(
            "The store's validation split holds no text.",
            "Prepare it again from more documents or with a larger validation share.",
        )
    return sample_documents(split, settings.documents, settings.tokens, settings.seed)


def what_was_read(split: Split, full: Split) -> dict[str, int]:
    """Returns the size of a sample of documents and of the split that it comes from, for evaluation.json."""
    sizes = {"documents": split.num_documents, "documents_total": full.num_documents}
    return sizes | {"tokens": split.num_tokens, "tokens_total": full.num_tokens}


@dataclass(frozen=True)
class HeldOutRows:
    """Rows of held-out documents under an objective, in batches that belong to one document each.

    Attributes:
        objective: whose rows they are.
        vocabulary: special ids in the roles that the model gives them.
        reader: of the documents.
        numbers: (R,) rows that are read.
        seed: of the corruption.
        weights: (sources,) see `metric.Clusters`.
        weighted_bytes: UTF-8 bytes of the documents, each by the weight of its source.
        batch_tokens: tokens of a batch; it changes nothing but rounding.
    """

    objective: TrainingObjective
    vocabulary: Vocabulary
    reader: RowReader
    numbers: I64
    seed: int
    weights: NDArray[np.float64]
    weighted_bytes: float
    batch_tokens: int = BATCH_TOKENS

    @classmethod
    def of(
        cls,
        objective: TrainingObjective,
        vocabulary: Vocabulary,
        split: Split,
        length: int,
        seed: int,
        full: Split | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> HeldOutRows:
        """Returns one pass over sampled documents.

        Args:
            objective: whose rows they are.
            vocabulary: special ids in the roles that the model gives them.
            split: the sampled documents.
            length: tokens of a row.
            seed: of the corruption.
            full: the split they were sampled from. If an objective finds no row in so few documents (such as pairs of
                sentences), rows of about `MOST_TOKENS` tokens of all of it are sampled instead.
            batch_tokens: tokens of a batch.

        Raises:
            UserError: the text contains no row for the objective.
        """
        weights = _source_weights(split, split if full is None else full)
        try:
            reader = by_document(objective.reader(split, vocabulary, length), seed)
            numbers = np.arange(reader.rows_per_pass)
        except UserError:
            if full is None:
                raise
            reader = by_document(objective.reader(full, vocabulary, length), seed)
            numbers = sampled_rows(reader, max(1, int(MOST_TOKENS // reader.tokens_per_row)), seed)
            weights = np.ones_like(weights)
        weighted_bytes = float((weights[split.document_sources] * split.document_bytes).sum())
        return cls(objective, vocabulary, reader, numbers, seed, weights, weighted_bytes, batch_tokens)

    @property
    def left_out(self) -> str:
        """Returns what is said if rows of some kinds of text are left out, so that all keep their shares; else ""."""
        reader = self.reader
        if not isinstance(reader, InterleavedReader):
            return ""
        read = [(reader.rows_of(index), part.rows_per_pass) for index, part in enumerate(reader.readers)]
        if all(count >= every for count, every in read):
            return ""
        some = " and ".join(f"{min(count, every):,} of {every:,}" for count, every in read)
        return f"pairs and plain text keep their shares in training: {some} rows were read"

    def some(self, count: int) -> HeldOutRows:
        """Returns a sample of `count` of the rows."""
        return replace(self, numbers=self.numbers[sampled(self._sources(self.numbers), count, self.seed)])

    def batches(self) -> Iterator[Batch]:
        """Yields the corrupted rows; places after the end of a document, or of a group of short ones, are padding."""
        for numbers in self._pieces:
            rows = self.reader.read(numbers, np.zeros_like(numbers), self.seed, pad=self.vocabulary.pad)
            yield self.objective.collate(rows, self.vocabulary, CounterRNG.of(self.seed, 0, rows.example_ids))

    @cached_property
    def clusters(self) -> Clusters:
        """The document and source of each batch."""
        first = np.array([numbers[0] for numbers in self._pieces], np.int64)
        sources = self._sources(first)
        return Clusters(self._documents(first), sources, self.weights[sources])

    @cached_property
    def _pieces(self) -> list[I64]:
        """The rows of each batch: of one document and one variant."""
        documents = self._documents(self.numbers)
        order = np.argsort(documents, kind="stable")
        step = max(1, int(self.batch_tokens // self.reader.tokens_per_row))
        found = []
        for place in np.split(order, np.flatnonzero(np.diff(documents[order])) + 1):
            for start in range(0, len(place), step):
                numbers = self.numbers[place[start : start + step]]
                found += [numbers[group] for group in self.reader.groups(numbers)]
        return found

    def _documents(self, numbers: I64) -> I64:
        return self.reader.documents(numbers, self.seed) if isinstance(self.reader, DocumentRowReader) else numbers

    def _sources(self, numbers: I64) -> I64:
        reader = self.reader
        return reader.sources(numbers, self.seed) if isinstance(reader, DocumentRowReader) else np.zeros_like(numbers)


def _source_weights(split: Split, full: Split) -> NDArray[np.float64]:
    """Returns (sources,) how many documents of a source each sampled one represents, relative to all.

    Samples are in proportion up to one document, and at least one of a small source: 3 of 35 documents and 1 of 5 have
    weights 35 · 4 / (3 · 40) = 1.17 and 0.5.
    """
    size = int(full.document_sources.max(initial=0)) + 1

    def documents(of: Split) -> NDArray[np.int64]:
        with_text = np.diff(of.documents.view(np.int64)) > 0
        return np.bincount(of.document_sources[with_text], minlength=size)

    some, all_of_them = documents(split), documents(full)
    found: NDArray[Any] = all_of_them * some.sum() / np.maximum(some * all_of_them.sum(), 1)
    return found
