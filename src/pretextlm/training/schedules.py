"""Learning-rate schedules over the share of the budget used, in whatever unit the budget is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pretextlm.training.recipe import TrainingConfig


def learning_rate_multiplier(
    progress: float, schedule: Literal["wsd", "cosine", "linear"], warmup: float, cooldown: float, final: float
) -> float:
    """Returns the multiplier of the peak learning rate.

    Linear warm-up over the first `warmup`; then "wsd" is constant and decays linearly over the last `cooldown` (Hu et
    al. 2024, https://arxiv.org/abs/2404.06395), "cosine" and "linear" decay over the rest.

    Args:
        progress: share of the budget used, 0 … 1.
        schedule: form of the decay.
        warmup: share of the budget with a rising rate.
        cooldown: share of the budget with a falling rate, for "wsd".
        final: multiplier at the end.
    """
    if progress < warmup:
        return progress / warmup
    if schedule == "wsd":
        left = min(1.0, (1.0 - progress) / cooldown) if cooldown else 1.0
    else:
        left = (1.0 - progress) / (1.0 - warmup) if warmup < 1 else 1.0
    left = max(0.0, left)
    if schedule == "cosine":
        left = 0.5 - 0.5 * math.cos(math.pi * left)
    return final + (1.0 - final) * left


class LearningRateSchedule:
    """The schedule of a run.

    Args:
        config: table [training] of the recipe.
        step_share: share of the budget that the first step uses.
    """

    def __init__(self, config: TrainingConfig, step_share: float) -> None:
        self.config, self.step_share = config, step_share

    def multiplier(self, share: float, steps: int) -> float:
        """Returns the multiplier of the peak learning rate for the next step.

        It is that of the middle of the step: at its start, the first step of a warm-up would have rate 0.

        Args:
            share: of the budget used before the step.
            steps: done before the step.
        """
        middle = min(1.0, share + 0.5 * (share / steps if steps else self.step_share))
        config = self.config
        return learning_rate_multiplier(
            middle, config.schedule, config.warmup, config.cooldown, config.final_learning_rate
        )
