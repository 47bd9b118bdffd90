"""Learning-rate schedules as functions of the share of the budget used, whatever the budget counts."""

from __future__ import annotations

import math
from typing import Literal


def rate(
    progress: float, schedule: Literal["wsd", "cosine", "linear"], warmup: float, cooldown: float, final: float
) -> float:
    """Multiplier of the top learning rate at `progress` in 0 … 1.

    Linear warm-up over the first `warmup`; then wsd stays and falls linearly over the last `cooldown` (Hu et al. 2024,
    https://arxiv.org/abs/2404.06395), cosine and linear fall over all the rest; all end at `final`.
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
