"""Correlation of numbers with the numbers wanted: Pearson's of the values, Spearman's of their ranks.

Where one side is constant a correlation is undefined; it is then 0 with an unknown error: a constant tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretextlm.evaluation.scores.paired import numbers
from pretextlm.evaluation.scores.resampling import bootstrap_error
from pretextlm.metric import Metric

F64 = NDArray[np.float64]


def pearson(answers: ArrayLike, wanted: ArrayLike, resamples: int | None = None, seed: int = 0) -> Metric:
    """Pearson's correlation, from -1 to 1; its error is the bootstrap's."""
    found, meant = (_scaled(values) for values in numbers(answers, wanted))
    return _measured(found, meant, lambda weights: _weighted(found, meant, weights), resamples, seed)


def spearman(answers: ArrayLike, wanted: ArrayLike, resamples: int | None = None, seed: int = 0) -> Metric:
    """Spearman's correlation: Pearson's of the ranks, of which equal numbers share the mean. Its error is the
    bootstrap's, which ranks each resample anew.
    """
    found, meant = (_Ranks(values) for values in numbers(answers, wanted))

    def statistic(weights_RN: F64) -> F64:
        return _weighted(found.of(weights_RN), meant.of(weights_RN), weights_RN)

    once = np.ones((1, len(found.values)))
    return _measured(found.of(once)[0], meant.of(once)[0], statistic, resamples, seed)


def _measured(found: F64, meant: F64, statistic: Callable[[F64], F64], resamples: int | None, seed: int) -> Metric:
    if np.ptp(found) == 0 or np.ptp(meant) == 0:
        return Metric(0.0, len(found), None, "", "higher")
    value = float(_weighted(found, meant, np.ones((1, len(found))))[0])
    return Metric(value, len(found), bootstrap_error(statistic, len(found), resamples, seed), "", "higher")


def _scaled(values: F64) -> F64:
    """Moved and scaled to [-1, 1], which changes no correlation but keeps squares exact."""
    small = values / (np.abs(values).max() or 1.0)
    centred: F64 = small - small.mean()
    scaled: F64 = centred / (np.abs(centred).max() or 1.0)
    return scaled


def _weighted(found: F64, meant: F64, weights_RN: F64) -> F64:
    """(R,) Pearson's correlation under each row of weights; not a number where one side is constant.

    Args:
        found, meant: (N,) or (R, N) values.
    """
    total_R1 = weights_RN.sum(1, keepdims=True)
    found_RN = found - (weights_RN * found).sum(1, keepdims=True) / total_R1
    meant_RN = meant - (weights_RN * meant).sum(1, keepdims=True) / total_R1
    both_R = (weights_RN * found_RN * meant_RN).sum(1)
    spread_R = np.sqrt((weights_RN * found_RN**2).sum(1)) * np.sqrt((weights_RN * meant_RN**2).sum(1))
    value_R = np.divide(both_R, spread_R, out=np.full(len(both_R), np.nan), where=spread_R > 0)
    clipped_R: F64 = np.clip(value_R, -1.0, 1.0)
    return clipped_R


class _Ranks:
    """Ranks of numbers in samples of them."""

    def __init__(self, values: F64) -> None:
        self.values = values
        self.order = np.argsort(values, kind="stable")
        in_order = values[self.order]
        new = np.r_[True, in_order[1:] != in_order[:-1]]
        first = np.flatnonzero(new)
        group = np.cumsum(new) - 1
        self.first, self.last = first[group], np.r_[first[1:], len(values)][group]

    def of(self, weights_RN: F64) -> F64:
        """(R, N) the rank of each number where it occurs as often as its weight says: ties get their mean rank."""
        below_RN = np.zeros((len(weights_RN), len(self.values) + 1))
        np.cumsum(weights_RN[:, self.order], axis=1, out=below_RN[:, 1:])
        ranks_RN = np.empty_like(weights_RN)
        ranks_RN[:, self.order] = (below_RN[:, self.first] + below_RN[:, self.last] + 1) / 2
        return ranks_RN
