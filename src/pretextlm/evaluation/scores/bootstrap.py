"""Standard errors by the bootstrap (Efron 1979), for scores that are not a mean over examples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pretextlm.metric import Metric

I64 = NDArray[np.int64]
ScoreOfRows = Callable[[I64], float]
"""Takes the (R,) indices of some examples and returns their score; NaN where the score is undefined."""

RESAMPLES = 200
"""Resamples per standard error, which is then known to within about 5 % (Efron & Tibshirani 1993, section 6.4)."""


def measure(
    score: ScoreOfRows,
    n: int,
    unit: str,
    *,
    groups: I64 | None = None,
    num_groups: int | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Metric:
    """Compute a score of all examples with its bootstrap standard error.

    Args:
        score: Score of the examples with the given indices.
        n: Number reported as the metric's ``n``; also the number of examples, unless `groups` is given.
        unit: Unit of the score.
        groups: (N,) group of each example; see :func:`bootstrap_error`. By default each example is independent.
        num_groups: Number of groups, by default `n`.
        resamples: Number of resamples; with 0 there is no standard error.
        seed: Seed of the resampling.

    Returns:
        The metric. An undefined score is 0.0 with a standard error of None.
    """
    groups = np.arange(n) if groups is None else groups
    value = score(np.arange(len(groups)))
    if math.isnan(value):
        return Metric(0.0, n, None, unit, "higher")
    stderr = bootstrap_error(score, groups, n if num_groups is None else num_groups, resamples=resamples, seed=seed)
    return Metric(value, n, stderr, unit, "higher")


def bootstrap_error(
    score: ScoreOfRows, groups: I64, num_groups: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> float | None:
    """Compute the standard deviation of a score over resamples of its examples.

    Groups are sampled with replacement, each with all of its examples: sentences with their spans, questions with their
    answers. Of the groups [0, 0, 1], sampling group 0 twice gives the examples [0, 0, 1, 1].

    Args:
        score: Score of the examples with the given indices.
        groups: (N,) group of each example, from 0. Independent examples are each a group: ``np.arange(N)``.
        num_groups: Number of groups; some may have no example.
        resamples: Number of resamples.
        seed: Seed of the resampling; the same seed gives the same result.

    Returns:
        The standard error; None for a single group, and where most resamples leave the score undefined.
    """
    if num_groups < 2:
        return None
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, num_groups, num_groups), minlength=num_groups)
        values.append(score(np.repeat(np.arange(len(groups)), times[groups])))
    defined = [value for value in values if not math.isnan(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > max(1, resamples // 2) else None
