"""Epochs of different size: what each is made of is worked out once, and its rows are shuffled as a whole."""

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
"""Epochs held at a time: a step may lie in two."""


class Epochs(Generic[Made]):
    """The epochs of a reader whose rows are not known by arithmetic.

    How many rows the epochs before have must be known, so a resumed training works those out again, once.

    Args:
        make: (seed, epoch) → what the epoch's rows are made of, as many as it has; pure.
        copies: after how many epochs the same come again; 0: never.
        seeded: whether what an epoch is made of depends on the seed; if not, `make` is given 0.
    """

    def __init__(self, make: Callable[[int, int], Made], copies: int = 0, seeded: bool = True) -> None:
        self.copies, self.seeded = copies, seeded
        self._lock = threading.RLock()  # what one thread works out, others wait for
        self._make = lru_cache(KEPT_EPOCHS)(make)
        self._order = lru_cache(KEPT_EPOCHS)(_order)
        self._first: dict[int, list[int]] = {}

    def get(self, seed: int, epoch: int) -> Made:
        """What an epoch's rows are made of."""
        with self._lock:
            return self._make(seed if self.seeded else 0, epoch % self.copies if self.copies else epoch)

    def shuffled(self, ordinals: NDArray[np.integer], seed: int) -> tuple[I64, I64]:
        """Row numbers and epochs at places `ordinals` (B,) of training: a keyed permutation inside each epoch."""
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
        """Place in training of the first row of each epoch, up to the first that begins after `ordinal`."""
        first = self._first.setdefault(seed, [0])
        while first[-1] <= ordinal:
            first.append(first[-1] + len(self.get(seed, len(first) - 1)))
        return np.array(first)


def _order(size: int, seed: int, epoch: int) -> I64:
    """The rows of an epoch in the order of training: all at once is far cheaper than a few at a time."""
    return permute(np.arange(size), size, seed, epoch)
