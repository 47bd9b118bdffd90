"""How far numbers are from the numbers wanted."""

from __future__ import annotations

from numpy.typing import ArrayLike

from pretextlm.evaluation.scores.paired import numbers
from pretextlm.metric import Metric, mean


def mse(answers: ArrayLike, wanted: ArrayLike) -> Metric:
    """Mean squared error."""
    found, meant = numbers(answers, wanted)
    return mean((found - meant) ** 2, "", "lower")
