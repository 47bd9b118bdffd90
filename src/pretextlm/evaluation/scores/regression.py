"""Scores of numbers: Pearson and Spearman correlation, computed by scipy, and mean squared error.

A correlation is undefined where one side is constant, and then 0.0 with an unknown error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pretextlm.evaluation.scores.bootstrap import I64, RESAMPLES, measure
from pretextlm.evaluation.scores.inputs import numbers
from pretextlm.metric import Metric, mean


def pearson(predictions: ArrayLike, references: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Metric:
    """Compute the Pearson correlation coefficient, from -1 to 1, with its bootstrap standard error."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, predictions, references, resamples, seed)


def spearman(predictions: ArrayLike, references: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Metric:
    """Compute the Spearman rank correlation, from -1 to 1, with its bootstrap standard error; ties share a rank."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, predictions, references, resamples, seed)


def mse(predictions: ArrayLike, references: ArrayLike) -> Metric:
    """Compute the mean squared error."""
    predicted, expected = numbers(predictions, references)
    return mean((predicted - expected) ** 2, "", "lower")


def _correlation(
    statistic: Callable[..., Any], predictions: ArrayLike, references: ArrayLike, resamples: int, seed: int
) -> Metric:
    predicted, expected = numbers(predictions, references)

    def score(rows: I64) -> float:
        if np.ptp(predicted[rows]) == 0 or np.ptp(expected[rows]) == 0:
            return math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scipy warns of nearly constant values, as after a collapse of the model
            return float(statistic(predicted[rows], expected[rows])[0])

    return measure(score, len(predicted), "", resamples=resamples, seed=seed)
