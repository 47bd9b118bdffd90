"""Epochs of different sizes: the rows of each are computed once and shuffled together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sized
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import permute

I64 = NDArray[np.int64]
Made = TypeVar("Made", bound=Sized)

KEPT_EPOCHS = 2
"""Epochs kept in memory: a step may overlap two."""


class Epochs(Generic[Made]):
    """Epochs of a reader whose number of rows per epoch is not known by arithmetic.

    A row's position in training depends on the sizes of all epochs before it, so a resumed training computes these
    again, once.

    Args:
        make: (seed, epoch) → a sized description of the epoch's rows; pure.
        copies: number of epochs after which they repeat; 0: never.
        seeded: whether the content of an epoch depends on the seed; if not, `make` is called with seed 0.
    """

    def __init__(self, make: Callable[[int, int], Made], copies: int = 0, seeded: bool = True) -> None:
        self.copies, self.seeded = copies, seeded
        self._lock = threading.RLock()  # what one thread works out, others wait for
        self._make = lru_cache(KEPT_EPOCHS)(make)
        self._order = lru_cache(KEPT_EPOCHS)(_order)
        self._first: dict[int, list[int]] = {}

    def get(self, seed: int, epoch: int) -> Made:
        """Returns the description of an epoch's rows."""
        with self._lock:
            return self._make(seed if self.seeded else 0, epoch % self.copies if self.copies else epoch)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Returns (row numbers, epochs) at positions `ordinals` (B,) of training; each epoch is permuted by its own
        key.
        """
        ordinals = np.asarray(ordinals, dtype=np.int64)
        with self._lock:
            first = self._first_ordinals(seed, int(ordinals.max(initial=0)))
            epochs = np.searchsorted(first, ordinals, side="right") - 1
            numbers = np.empty_like(ordinals)
            for epoch in np.unique(epochs).tolist():
                inside = epochs == epoch
                size = int(first[epoch + 1] - first[epoch])
                numbers[inside] = self._order(size, seed, epoch)[ordinals[inside] - first[epoch]]
        return numbers, epochs

    def _first_ordinals(self, seed: int, ordinal: int) -> I64:
        """Returns the position in training of the first row of each epoch, up to the first that begins after
        `ordinal`.
        """
        first = self._first.setdefault(seed, [0])
        while first[-1] <= ordinal:
            first.append(first[-1] + len(self.get(seed, len(first) - 1)))
        return np.array(first)


def _order(size: int, seed: int, epoch: int) -> I64:
    """Returns the rows of an epoch in training order; computing all at once is far cheaper than a few at a time."""
    return permute(np.arange(size), size, seed, epoch)
