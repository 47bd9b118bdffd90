"""Rows of several readers in turn, in exact proportions: other kinds of text, not only other shapes of the same.

Rows come in blocks of Q with a fixed quota of each reader's. For example, shares ⅔ and ⅓ of readers A and B:

    number    0   1   2   3   4   5
    row       A0  B0  A1  A2  B1  A3

Each reader goes through its own text at its own pace, in its own epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows
from pretextlm.data.mixture import interleaved, quotas
from pretextlm.data.row_reader import DocumentRowReader, RowReader

I64 = NDArray[np.int64]


class InterleavedReader:
    """Reads from several readers, whose variants are numbered one after another.

    Args:
        readers: where the rows come from.
        weights: their shares of the rows, above 0.
        variants: how many each has.
        chosen: rows of each reader to read instead of its first ones, as many as one pass has (`rows_of`).
    """

    def __init__(
        self,
        readers: Sequence[RowReader],
        weights: Sequence[float],
        variants: Sequence[int],
        chosen: Sequence[I64] | None = None,
    ) -> None:
        self.readers, self.weights, self.variants, self._chosen = list(readers), weights, variants, chosen
        self._first_variant = [sum(variants[:index]) for index in range(len(self.readers))]
        self.slots = interleaved(quotas(weights))
        self._slots_of = [np.flatnonzero(self.slots == index) for index in range(len(self.readers))]
        self._nth = np.zeros(len(self.slots), dtype=np.int64)  # of the slot among those of its reader
        for slots in self._slots_of:
            self._nth[slots] = np.arange(len(slots))

    @property
    def rows_per_pass(self) -> int:
        """Rows in order until one of the readers would begin again: nothing is read twice."""
        ends = [self._outer(i, np.array([reader.rows_per_pass])) for i, reader in enumerate(self.readers)]
        return int(min(end[0] for end in ends))

    def rows_of(self, index: int) -> int:
        """Rows of a reader among those of one pass."""
        blocks, rest = divmod(self.rows_per_pass, len(self.slots))
        return blocks * len(self._slots_of[index]) + int(np.searchsorted(self._slots_of[index], rest))

    @property
    def tokens_per_row(self) -> float:
        shares = [len(slots) / len(self.slots) for slots in self._slots_of]
        return sum(share * reader.tokens_per_row for share, reader in zip(shares, self.readers, strict=True))

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        wanted = np.array(ordinals, dtype=np.int64)
        numbers, epochs = np.empty_like(wanted), np.empty_like(wanted)
        for index, places in self._places(wanted):
            found, epochs[places] = self.readers[index].shuffled(self._inner(wanted[places]), seed)
            numbers[places] = self._outer(index, found)
        return numbers, epochs

    def groups(self, numbers: I64) -> list[I64]:
        found = []
        for index, places in self._places(numbers):
            found += [places[group] for group in self.readers[index].groups(self._rows(index, numbers[places]))]
        return found

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        numbers = np.array(numbers, dtype=np.int64)
        ((index, _),) = self._places(numbers)  # rows of one reader are read together
        rows = self.readers[index].read(self._rows(index, numbers), epochs, seed, pad)
        return dataclasses.replace(rows, variant=self._first_variant[index] + rows.variant, example_ids=numbers)

    def documents(self, numbers: I64, seed: int) -> I64:
        """(B,) documents of the rows; those of two readers are never the same one."""
        numbers = np.asarray(numbers, dtype=np.int64)
        found = np.empty_like(numbers)
        for index, places in self._places(numbers):
            reader, inner = self.readers[index], self._rows(index, numbers[places])
            own = reader.documents(inner, seed) if isinstance(reader, DocumentRowReader) else inner
            found[places] = own * len(self.readers) + index
        return found

    def sources(self, numbers: I64, seed: int) -> I64:
        """(B,) sources of the rows' documents."""
        numbers = np.asarray(numbers, dtype=np.int64)
        found = np.zeros_like(numbers)
        for index, places in self._places(numbers):
            reader = self.readers[index]
            if isinstance(reader, DocumentRowReader):
                found[places] = reader.sources(self._rows(index, numbers[places]), seed)
        return found

    def _rows(self, index: int, numbers: I64) -> I64:
        """Rows that a reader reads for these numbers, all of them its own."""
        inner = self._inner(numbers)
        return inner if self._chosen is None else self._chosen[index][inner]

    def _places(self, numbers: I64) -> list[tuple[int, I64]]:
        """(reader, places in `numbers` of its rows) for each reader that has some."""
        readers = self.slots[numbers % len(self.slots)]
        found = ((index, np.flatnonzero(readers == index)) for index in range(len(self.readers)))
        return [(index, places) for index, places in found if len(places)]

    def _inner(self, numbers: I64) -> I64:
        """Numbers of rows (all of one reader) → that reader's own numbers."""
        blocks, slots = np.divmod(numbers, len(self.slots))
        quota = len(self._slots_of[int(self.slots[slots[0]])])
        inner: I64 = blocks * quota + self._nth[slots]
        return inner

    def _outer(self, index: int, numbers: I64) -> I64:
        """The other way."""
        slots = self._slots_of[index]
        blocks, nth = np.divmod(numbers, len(slots))
        outer: I64 = blocks * len(self.slots) + slots[nth]
        return outer
