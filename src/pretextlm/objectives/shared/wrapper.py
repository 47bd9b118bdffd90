"""The base of objectives that wrap another: they share its rows and noise, and compute another loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.registry import ObjectiveField
from pretextlm.scoring.blank_layout import BlankLayout

if TYPE_CHECKING:
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.store import Split


class Wrapper(Objective):
    """Base of objectives that have an inner one. All methods are those of the inner objective unless overridden.

    Args:
        inner: the objective that is wrapped.
    """

    inner: ObjectiveField = Field(description="the objective that is wrapped")

    @property
    def reads_stream(self) -> bool:
        return self.inner.reads_stream

    @property
    def reads_pairs(self) -> bool:
        return self.inner.reads_pairs

    @property
    def label_names(self) -> dict[int, str]:
        return self.inner.label_names

    def variant_names(self) -> list[str]:
        return self.inner.variant_names()

    def num_token_types(self) -> int:
        return self.inner.num_token_types()

    @property
    def noise_period(self) -> int:
        return self.inner.noise_period

    @property
    def scheduled_noise(self) -> bool:
        return self.inner.scheduled_noise

    def frame(self, vocabulary: Vocabulary) -> Frame:
        return self.inner.frame(vocabulary)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        return self.inner.variants(vocabulary, length)

    def documents(self, split: Split) -> Split:
        return self.inner.documents(split)

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        return self.inner.reader(split, vocabulary, length)

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        return self.inner.blank_layout(vocabulary, architecture)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        return self.inner.collate(rows, vocabulary, rng)
