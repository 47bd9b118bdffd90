"""The loss on held-out text during training: always the same rows under the same masks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pretextlm.batch import Batch
from pretextlm.keyed import Keyed

if TYPE_CHECKING:
    import torch

    from pretextlm.data.rows import StreamReader
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective

TOKENS_AT_ONCE = 8192


class ValidationLoss(NamedTuple):
    """Summed loss in nats, number of targets, and what training minimises: the weighted sum of the terms' means.

    With one term of coefficient 1, mean is total / targets.
    """

    total: float
    targets: int
    mean: float


def validation_loss(
    model: Transformer,
    reader: StreamReader,
    objective: Objective,
    vocabulary: Vocabulary,
    rows: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> ValidationLoss:
    """The objective's loss on the first `rows` rows of a split, or all if there are fewer.

    Every draw depends on the seed and the row's number, so a run's losses are comparable from start to end, and the
    number of rows computed at once changes nothing but rounding. The model is left in the mode it was in.

    Args:
        reader: over the validation split.
        seed: of the masks; the same for all runs that are compared.
    """
    import torch

    from pretextlm.model.inputs import prepare

    totals: dict[str, float] = {}
    counts: dict[str, int] = {}
    coefficients: dict[str, float] = {}
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in evaluation_batches(reader, objective, vocabulary, rows, seed):
                outputs = model(prepare(batch, model.config, device, dtype))
                for name, term in objective.terms(outputs, batch).items():
                    totals[name] = totals.get(name, 0.0) + float(term.total)
                    counts[name] = counts.get(name, 0) + term.count
                    coefficients[name] = term.coefficient
    finally:
        model.train(training)
    mean = sum(coefficients[name] * totals[name] / max(counts[name], 1) for name in totals)
    return ValidationLoss(sum(totals.values()), sum(counts.values()), mean)


def evaluation_batches(
    reader: StreamReader,
    objective: Objective,
    vocabulary: Vocabulary,
    rows: int,
    seed: int,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> Iterator[Batch]:
    """The first `rows` rows of one pass, in order, corrupted under fixed draws; what lies after the end is padding."""
    rows = min(rows, reader.rows_per_pass)
    step = max(1, tokens_at_once // reader.variant.raw)
    for start in range(0, rows, step):
        numbers = np.arange(start, min(start + step, rows))
        read = reader.read(numbers, pad=vocabulary.pad)
        yield objective.corrupt(read, vocabulary, Keyed.of(seed, 0, numbers))
