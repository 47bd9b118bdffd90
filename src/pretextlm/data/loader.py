"""Batches ahead of the trainer: a pure function of the place in training, computed by threads in the background."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pretextlm.batch import Batch, Rows
from pretextlm.data.rows import StreamReader
from pretextlm.keyed import Keyed


class Loader:
    """Reads and corrupts rows. The batches are the same for any number of workers.

    Args:
        reader: where the rows come from.
        corrupt: an objective's `corrupt` with its vocabulary bound: (rows, rng) → batch, pure.
        seed: of the order of the rows and of every draw.
        rows_per_batch: rows of a batch unless `batches` is told otherwise.
        workers: threads that prepare batches ahead; numpy and the memory map leave the interpreter's lock.
    """

    def __init__(
        self,
        reader: StreamReader,
        corrupt: Callable[[Rows, Keyed], Batch],
        seed: int,
        rows_per_batch: int,
        workers: int = 1,
    ) -> None:
        self.reader, self.corrupt, self.seed = reader, corrupt, seed
        self.rows_per_batch, self.workers = rows_per_batch, max(1, workers)
        self._pool: ThreadPoolExecutor | None = None

    def batch(self, first_ordinal: int, count: int) -> Batch:
        """The batch of rows at places first_ordinal … first_ordinal+count-1 of training, counted over all epochs."""
        ordinals = np.arange(first_ordinal, first_ordinal + count)
        numbers, epochs = self.reader.shuffled(ordinals, self.seed)
        return self.corrupt(self.reader.read(numbers), Keyed.of(self.seed, epochs, numbers))

    def batches(self, first_ordinal: int = 0, count_per_batch: int | None = None) -> Iterator[Batch]:
        """Endless batches from `first_ordinal` on, in order, a few prepared ahead. Raises what a worker raised."""
        count = count_per_batch or self.rows_per_batch
        pool = self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(ahead) < self.workers + 1:
                    ahead.append(pool.submit(self.batch, first_ordinal, count))
                    first_ordinal += count
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        """End the threads; the loader may be used again after."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
