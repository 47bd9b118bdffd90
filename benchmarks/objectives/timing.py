"""An objective's rows, and the processor time of all that is done with them, in turns."""

from __future__ import annotations

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from benchmarks.objectives.text import Text
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pretextlm.batch import Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.mixture import Mixture
from pretextlm.data.row_shapes import Variant
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective

SEED = 0

Work = Callable[[], Any]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Peer:
    """One way that others do it. `tokens`: of text, in one go of `work`."""

    label: str
    work: Work
    tokens: int


@dataclass(frozen=True)
class Sample:
    """What is measured: rows of one variant of an objective.

    Attributes:
        places: (numbers, epochs) of the rows of each turn; the first turn's are `rows`.
        tokens: of text, in `rows`.
        once: rows among which work once an epoch is shared out; 0 where there is none.
    """

    objective: Objective
    variant: Variant
    text: Text
    split: Split
    vocabulary: Vocabulary
    length: int
    reader: Any
    places: Sequence[tuple[I64, I64]]
    rows: Rows
    tokens: int
    once: int

    @property
    def tokenizer(self) -> Tokenizer:
        return self.text.real[0]

    def matrix(self, count: int) -> NDArray[np.int32]:
        """(count, T) tokens of the first rows."""
        return self.rows.matrix(self.rows.tokens)[:count]

    def tokens_in(self, count: int) -> int:
        """Tokens of text in the first rows."""
        return round(self.tokens * min(count, len(self.rows)) / len(self.rows))

    def collate(self) -> None:
        _collate(self.objective, self.rows, self.vocabulary)

    def read_and_collate(self, turn: int) -> None:
        numbers, epochs = self.places[turn % len(self.places)]
        _collate(self.objective, self.reader.read(numbers, epochs, SEED), self.vocabulary)

    def index(self) -> None:
        """The work of an epoch, from a reader made anew."""
        reader = self.objective.reader(self.split, self.vocabulary, self.length)
        reader.shuffled(np.arange(len(self.rows)), SEED)


def padded(rows: Sequence[Sequence[int] | NDArray[Any]], fill: int) -> NDArray[Any]:
    """(B, longest) rows of different lengths. For peers."""
    out = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for into, row in zip(out, rows, strict=True):
        into[: len(row)] = row
    return out


def samples(
    objective: Objective, text: Text, length: int, count: int, turns: int, spelled: bool, parts: int
) -> Iterator[Sample]:
    """The rows of each variant, `count` at a time."""
    vocabulary = text.spelled_vocabulary if spelled else text.vocabulary
    split = text.real[1] if spelled else text.pairs if parts == 2 else text.plain
    variants = objective.variants(vocabulary, length)
    reader = objective.reader(split, vocabulary, length)
    least = min(v.weight for v in variants) / sum(v.weight for v in variants)
    wanted = int(count * (turns + 1) / least)
    numbers, epochs = reader.shuffled(np.arange(wanted), SEED)
    for group in reader.groups(numbers):
        some = [group[i : i + count] for i in range(0, max(len(group) - count, 0) + 1, count)]
        places = [(numbers[part], epochs[part]) for part in some]
        rows = reader.read(*places[0], SEED)
        variant = variants[rows.variant]
        if objective.scheduled_noise:
            rows = dataclasses.replace(rows, progress=np.linspace(0, 1, len(rows)))
        once = 0 if isinstance(reader, Mixture) else reader.rows_per_pass
        tokens = _text_tokens(rows, vocabulary) * (variant.raw - variant.overlap) // variant.raw
        yield Sample(objective, variant, text, split, vocabulary, length, reader, places, rows, tokens, once)


def take_turns(works: Sequence[Callable[[int], None]], turns: int) -> list[list[float]]:
    """Seconds of processor time of each in every turn. The first turn, which warms up, is left out."""
    times: list[list[float]] = [[] for _ in works]
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()  # as timeit does: no one is charged for the garbage of another
    try:
        for turn in range(turns + 1):
            for work, seconds in zip(works, times, strict=True):
                start = time.process_time()
                work(turn)
                seconds.append(time.process_time() - start)
            gc.collect()
    finally:
        if enabled:
            gc.enable()
    return [seconds[1:] for seconds in times]


@dataclass(frozen=True)
class Rate:
    """Million tokens a second: of the best turn, and by how much the median turn was slower than it."""

    best: float
    spread: float

    @classmethod
    def of(cls, tokens: int, seconds: Sequence[float]) -> Rate:
        best = min(seconds)
        return cls(tokens / best / 1e6, statistics.median(seconds) / best - 1)


def _collate(objective: Objective, rows: Rows, vocabulary: Vocabulary) -> None:
    objective.collate(rows, vocabulary, CounterRNG.of(SEED, 0, rows.example_ids))


def _text_tokens(rows: Rows, vocabulary: Vocabulary) -> int:
    return int(np.count_nonzero(~vocabulary.is_special[rows.tokens] & (rows.segment_ids >= 0)))
