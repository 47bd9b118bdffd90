"""The area under the curve of precision and recall: how well probabilities order records, whatever the threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretextlm.evaluation.scores.resampling import FEWEST, bootstrap_error
from pretextlm.metric import Metric

F64 = NDArray[np.float64]


def auprc(chances: ArrayLike, wanted: Sequence[int], resamples: int = FEWEST, seed: int = 0) -> Metric:
    """Mean over classes of the area under each one's curve, as KLUE-RE is judged (Park et al. 2021).

    A class's curve is that of the class against all others. Between two thresholds it is a straight line, and it begins
    at recall 0 with precision 1. A class that is never wanted has no curve and is left out. The standard error is
    the bootstrap's.

    Args:
        chances: (N, C) probability of each class.
        wanted: (N,) numbers of the classes, from 0.
    """
    chances_NC, wanted_N = np.asarray(chances, np.float64), np.asarray(wanted, np.int64)
    if chances_NC.ndim != 2 or len(chances_NC) != len(wanted_N) or not len(wanted_N):
        raise ValueError(f"{len(wanted_N)} labels do not fit probabilities of shape {chances_NC.shape}")
    if wanted_N.min() < 0 or wanted_N.max() >= chances_NC.shape[1]:
        raise ValueError("a label is none of the classes")
    curves = [_Curve(chances_NC[:, number], wanted_N == number) for number in np.unique(wanted_N)]

    def statistic(weights_RN: F64) -> F64:
        areas_RC = np.stack([curve.area(weights_RN) for curve in curves], 1)
        some_RC = np.isfinite(areas_RC)
        mean_R: F64 = np.where(some_RC, areas_RC, 0).sum(1) / some_RC.sum(1)
        return mean_R

    value = float(statistic(np.ones((1, len(wanted_N))))[0])
    return Metric(value, len(wanted_N), bootstrap_error(statistic, len(wanted_N), resamples, seed), "share", "higher")


class _Curve:
    """One class against all others."""

    def __init__(self, chance_N: F64, is_wanted_N: NDArray[np.bool_]) -> None:
        self.order = np.argsort(-chance_N, kind="stable")
        self.wanted = is_wanted_N[self.order].astype(np.float64)
        in_order = chance_N[self.order]
        self.last = np.flatnonzero(np.append(in_order[1:] != in_order[:-1], True))  # of equal probabilities

    def area(self, weights_RN: F64) -> F64:
        """(R,) area where each record occurs as often as its weight says; not a number where the class does not."""
        ordered_RN = weights_RN[:, self.order]
        found_RK = ordered_RN.cumsum(1)[:, self.last]
        right_RK = (ordered_RN * self.wanted).cumsum(1)[:, self.last]
        precision_RK = np.divide(right_RK, found_RK, out=np.ones_like(found_RK), where=found_RK > 0)
        total_R1 = right_RK[:, -1:]
        recall_RK = np.divide(right_RK, total_R1, out=np.full_like(right_RK, np.nan), where=total_R1 > 0)
        before_RK = np.concatenate([np.ones((len(weights_RN), 1)), precision_RK[:, :-1]], 1)
        area_R: F64 = (np.diff(recall_RK, axis=1, prepend=0.0) * (precision_RK + before_RK) / 2).sum(1)
        return area_R
