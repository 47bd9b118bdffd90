"""Batches prepared ahead of the trainer by background threads; each is a pure function of its place in training."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Rows, Spare
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.dropout_keys import with_dropout_keys
from pretextlm.data.row_reader import RowReader

POLL_SECONDS = 0.2


class Loader:
    """Reads and collates the rows of each step. The batches are the same for any number of workers.

    Args:
        reader: reads rows by number.
        collate: an objective's `collate` with its vocabulary bound: (rows, rng) → batch, pure.
        seed: of the order of the rows and of every random number.
        workers: threads that prepare steps ahead; numpy and the memory map release the interpreter's lock.
        copies: number of epochs after which the random numbers repeat; 0: never.
        total_rows: rows of the whole training if known; noise that follows a schedule needs it.
        dropout_keys: "" for none, "rows", or "packed" if a row of the batch holds several examples.
        share: (rank, world size) of this process. All processes get the same number of batches, with a spare batch
            where there are too few rows.
    """

    def __init__(
        self,
        reader: RowReader,
        collate: Callable[[Rows, CounterRNG], Batch],
        seed: int,
        workers: int = 1,
        copies: int = 0,
        total_rows: float | None = None,
        share: tuple[int, int] = (0, 1),
        dropout_keys: Literal["", "rows", "packed"] = "",
    ) -> None:
        self.reader, self.collate, self.seed, self.workers = reader, collate, seed, max(1, workers)
        self.copies, self.total_rows, self.share, self.dropout_keys = copies, total_rows, share, dropout_keys
        self._pool: ThreadPoolExecutor | None = None

    def step(self, first_ordinal: int, count: int, rows_per_batch: int) -> list[Batch]:
        """Read the rows at positions first_ordinal … first_ordinal + count - 1 of training, counted over all epochs.

        Returns:
            This process's batches, each of at most `rows_per_batch` rows of one variant.
        """
        ordinals = np.arange(first_ordinal, first_ordinal + count)
        numbers, epochs = self.reader.shuffled(ordinals, self.seed)
        draws = epochs % self.copies if self.copies else epochs
        batches = []
        for group in self.reader.groups(numbers):
            for piece in shared_out(group, rows_per_batch, *self.share):
                some = piece if len(piece) else group[:1]
                rows = self.reader.read(numbers[some], epochs[some], self.seed)
                if self.total_rows:
                    rows = dataclasses.replace(rows, progress=np.minimum(ordinals[some] / self.total_rows, 1.0))
                batch = self.collate(rows, CounterRNG.of(self.seed, draws[some], rows.example_ids))
                if self.dropout_keys:
                    rng = CounterRNG.of(self.seed, epochs[some], rows.example_ids)
                    batch = with_dropout_keys(batch, rows, rng, packed=self.dropout_keys == "packed")
                batches.append(batch if len(piece) else Spare(**vars(batch)))
        return batches

    def steps(
        self, first_ordinal: int, count: int, rows_per_batch: int, waiting: Callable[[], None] = lambda: None
    ) -> Iterator[list[Batch]]:
        """Yield the batches of successive steps of `count` rows from `first_ordinal` on, a few steps prepared ahead.

        Args:
            waiting: called repeatedly while a step is not ready; may raise to stop waiting.

        Raises:
            Exception: whatever a worker raised.
        """
        pool = self._pool = self._pool or ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        ahead: deque[Future[list[Batch]]] = deque()
        try:
            while True:
                while len(ahead) < self.workers + 1:
                    ahead.append(pool.submit(self.step, first_ordinal, count, rows_per_batch))
                    first_ordinal += count
                while not ahead[0].done():
                    with suppress(TimeoutError):
                        ahead[0].exception(timeout=POLL_SECONDS)
                        continue
                    waiting()
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self, wait: bool = True) -> None:
        """Stop the threads, at once or after each has finished its step. The loader may be used again."""
        if self._pool is not None:
            self._pool.shutdown(wait=wait, cancel_futures=True)
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def shared_out(group: NDArray[np.int64], most: int, number: int, processes: int) -> list[NDArray[np.int64]]:
    """Returns one process's parts of a group of rows, each of at most `most` rows; all processes get as many."""
    if processes == 1:
        return [group[start : start + most] for start in range(0, len(group), most)]
    pieces = -(-len(group) // (most * processes)) * processes
    return np.array_split(group, pieces)[number::processes]
