"""The contract of readers: what a data loader asks of an object that reads a split as rows."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Rows

I64 = NDArray[np.int64]


class RowReader(Protocol):
    """Reads a split as an objective's rows.

    Attributes:
        rows_per_pass: rows that together read everything once (of the first epoch, where epochs differ).
        tokens_per_row: text tokens that a row accounts for, on average.
    """

    @property
    def rows_per_pass(self) -> int: ...

    @property
    def tokens_per_row(self) -> float: ...

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Returns (row numbers, epochs) at positions `ordinals` (B,) of training, counted over all epochs."""
        ...

    def groups(self, numbers: I64) -> list[I64]:
        """Splits a batch by variant, since only rows of one variant are read together.

        Returns:
            For each variant that occurs, the indices into `numbers` (B,) of its rows.
        """
        ...

    def read(self, numbers: I64, epochs: I64, seed: int, pad: int | None = None) -> Rows:
        """Returns the rows with these numbers, all of one variant.

        Args:
            numbers: (B,) as `shuffled` returns them; 0 … rows_per_pass-1 of epoch 0 are one pass in order.
            epochs: (B,) as `shuffled` returns them.
            seed: for readers with random content.
            pad: id for positions after the end of the split, which then is not read again from its start.
        """
        ...


@runtime_checkable
class DocumentRowReader(RowReader, Protocol):
    """A reader that knows which documents its rows come from, as held-out measures need it."""

    def documents(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) a number of the document in which each row (B,) of epoch 0 begins."""
        ...

    def sources(self, numbers: I64, seed: int) -> I64:
        """Returns (B,) the source of that document, as in `Split.document_sources`."""
        ...
