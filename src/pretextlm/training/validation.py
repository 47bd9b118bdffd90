"""Loss on held-out text during training: always on the same sample of rows with the same corruption."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pretextlm.batch import Batch, Spare, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.seeded_sample import sampled_rows
from pretextlm.errors import UserError
from pretextlm.training.distributed import SINGLE_PROCESS, DistributedContext

if TYPE_CHECKING:
    from torch import nn

    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.protocol import TrainingObjective
    from pretextlm.training.forward import Forward

TOKENS_AT_ONCE = 8192


@dataclass
class Sums:
    """One loss term, summed over rows.

    Attributes:
        total: summed loss.
        count: number of targets.
        coefficient: weight of the term in the loss.
        correct: number of correct predictions; None if the term has no accuracy.
    """

    total: float = 0.0
    count: int = 0
    coefficient: float = 1.0
    correct: float | None = None

    @property
    def mean(self) -> float:
        """Mean loss of a target."""
        return self.total / max(self.count, 1)


@dataclass
class Validation:
    """Result of a validation.

    Attributes:
        terms: sums by the name of the loss term.
    """

    terms: dict[str, Sums] = field(default_factory=lambda: defaultdict(Sums))

    @property
    def loss(self) -> float:
        """The training loss: weighted sum of the terms' means."""
        return sum(term.coefficient * term.mean for term in self.terms.values())

    @property
    def parts(self) -> dict[str, float]:
        """Mean loss of each term if there are several, and the accuracy of each term that has one."""
        several = {f"{name}_loss": term.mean for name, term in self.terms.items() if len(self.terms) > 1}
        judged = {f"{n}_accuracy": t.correct / max(t.count, 1) for n, t in self.terms.items() if t.correct is not None}
        return several | judged

    def add(self, name: str, term: Term, counts: bool) -> None:
        """Adds one term of a batch.

        Args:
            name: of the term.
            term: its summed loss and counts.
            counts: False for a spare batch, which only shows that the term exists.
        """
        sums = self.terms[name]
        sums.coefficient = term.coefficient
        if term.correct is not None:
            sums.correct = (sums.correct or 0.0) + float(term.correct) * counts
        if counts:
            sums.total += float(term.total)
            sums.count += term.count

    def over(self, distributed: DistributedContext) -> Validation:
        """Sums over the processes, all of which have the same terms.

        Returns:
            The result, changed in place.
        """
        if distributed.world_size == 1:
            return self
        names = sorted(self.terms)
        flat = [value for name in names for value in (self.terms[name].total, self.terms[name].count)]
        right = [self.terms[name].correct for name in names]
        sums = distributed.all_reduce_sum([*flat, *(value or 0.0 for value in right)])
        for i, name in enumerate(names):
            term = self.terms[name]
            term.total, term.count = sums[2 * i], round(sums[2 * i + 1])
            term.correct = None if right[i] is None else sums[2 * len(names) + i]
        return self

    def __str__(self) -> str:
        more = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.parts.items())
        return f"loss {self.loss:.4f}" + (f" ({more})" if more else "")


def validate(
    forward: Forward,
    reader: RowReader,
    objective: TrainingObjective,
    vocabulary: Vocabulary,
    rows: int,
    seed: int,
    *,
    step: Callable[[Batch], Mapping[str, Term]] | None = None,
    distributed: DistributedContext = SINGLE_PROCESS,
    before_batch: Callable[[], None] = lambda: None,
) -> Validation:
    """Computes the objective's loss on a sample of `rows` rows of a split, or on all of them if there are fewer.

    Every random choice depends on the seed and the row's number alone, so losses are comparable from the start of a run
    to its end, and the number of rows in a batch changes nothing but rounding. The model's mode (train, eval) is
    restored.

    Args:
        forward: the models.
        reader: of the validation split.
        objective: that corrupts the rows and computes the loss.
        vocabulary: special ids in the roles that the model gives them.
        rows: number of rows.
        seed: of the sample and the corruption; the same for all runs that are compared.
        step: computes the terms of a batch if the model is parallelized; None: `objective.step`.
        distributed: the processes that share the work, all of which call this.
        before_batch: called before every batch; may raise to abort.

    Returns:
        Sums of each term, the same on all processes.

    Raises:
        UserError: the rows have no target, so that there is no loss.
    """
    found = Validation()

    def take(number: int, batch: Batch, terms: Mapping[str, Term]) -> None:
        for name, term in terms.items():
            found.add(name, term, counts=not isinstance(batch, Spare))

    batches = evaluation_batches(reader, objective, vocabulary, rows, seed)
    measure = step or (lambda batch: objective.step(forward, batch))
    read_through(forward.models["model"], batches, measure, take, distributed=distributed, before_batch=before_batch)
    found.over(distributed)
    if not any(term.count for term in found.terms.values()):
        raise UserError(
            f"The validation data has no target under {objective.name!r}: there is nothing to measure.",
            "Give more validation data, or options of the objective that leave targets; training.validations=0: none.",
        )
    return found


def read_through(
    model: nn.Module,
    batches: Iterator[Batch],
    measure: Callable[[Batch], Mapping[str, Term]],
    take: Callable[[int, Batch, Mapping[str, Term]], None],
    *,
    distributed: DistributedContext = SINGLE_PROCESS,
    before_batch: Callable[[], None] = lambda: None,
) -> None:
    """Evaluates batches without gradients, each process its share. The model's mode (train, eval) is restored.

    Args:
        model: that is evaluated.
        batches: all of them; every process iterates over them.
        measure: computes the terms of a batch.
        take: called with the number of a batch, the batch and its terms, for spare batches as well.
        distributed: the processes that share the work, all of which call this.
        before_batch: called before every batch; may raise to abort.
    """
    import torch

    training = model.training
    model.eval()
    try:
        with torch.inference_mode() if distributed.world_size == 1 else torch.no_grad():
            for number, batch in _shared(batches, distributed):
                before_batch()
                take(number, batch, measure(batch))
    finally:
        model.train(training)


def _shared(batches: Iterator[Batch], distributed: DistributedContext) -> Iterator[tuple[int, Batch]]:
    """Yields this process's batches with their numbers.

    In the last round, processes without a batch get a spare one, so that all run as many forward passes: 5 batches
    among 3 processes are (0, 1, 2) and (3, 4, spare).
    """
    numbered = enumerate(batches)
    if distributed.world_size == 1:
        yield from numbered
        return
    while turn := list(itertools.islice(numbered, distributed.world_size)):
        own = distributed.rank < len(turn)
        yield turn[distributed.rank] if own else (turn[0][0], Spare(**vars(turn[0][1])))


def evaluation_batches(
    reader: RowReader,
    objective: TrainingObjective,
    vocabulary: Vocabulary,
    rows: int,
    seed: int,
    tokens_at_once: int | None = None,
) -> Iterator[Batch]:
    """Yields a sample of `rows` rows of one pass, corrupted with a fixed seed; after the end of the text is padding.

    Rows come in order, except that rows of one variant are batched together.

    Args:
        reader: of the split.
        objective: that corrupts the rows.
        vocabulary: special ids in the roles that the model gives them.
        rows: number of rows; all of one pass if there are not more.
        seed: of the sample and the corruption.
        tokens_at_once: tokens of a batch, but at least one row.
    """
    sample = sampled_rows(reader, rows, seed)
    tokens_at_once = TOKENS_AT_ONCE if tokens_at_once is None else tokens_at_once
    step = max(1, int(tokens_at_once // reader.tokens_per_row))
    for start in range(0, len(sample), step):
        numbers = sample[start : start + step]
        epochs = np.zeros_like(numbers)
        for group in reader.groups(numbers):
            read = reader.read(numbers[group], epochs[group], seed, pad=vocabulary.pad)
            yield objective.collate(read, vocabulary, CounterRNG.of(seed, 0, read.example_ids))
