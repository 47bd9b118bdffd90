"""Matthews' correlation of two labellings, which a majority class does not flatter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pretextlm.evaluation.scores.paired import Label, paired
from pretextlm.evaluation.scores.resampling import RESAMPLES
from pretextlm.metric import Metric

F64 = NDArray[np.float64]


def matthews(answers: Sequence[Label], wanted: Sequence[Label], resamples: int = RESAMPLES, seed: int = 0) -> Metric:
    """Matthews' correlation for any number of classes (Gorodkin 2004), from -1 to 1.

    (r N - Σₖ aₖ wₖ) / √((N² - Σ aₖ²)(N² - Σ wₖ²)), with r right answers, and aₖ answers and wₖ labels of class k.
    Where all answers or all labels are one class it is undefined, and 0 by convention with an unknown error. The
    error is the bootstrap's: resampling examples is drawing the cells of the confusion matrix.
    """
    both = paired(answers, wanted)
    count, size = len(wanted), len(both.classes)
    cells, times = np.unique(both.wanted * size + both.answers, return_counts=True)
    value = float(_correlation(times[None].astype(np.float64), cells, size)[0])
    if not np.isfinite(value):
        return Metric(0.0, count, None, "", "higher")
    drawn = np.random.default_rng(seed).multinomial(count, times / count, resamples).astype(np.float64)
    values = _correlation(drawn, cells, size)
    values = values[np.isfinite(values)]
    return Metric(value, count, float(values.std(ddof=1)) if len(values) > resamples // 2 else None, "", "higher")


def _correlation(times_RK: F64, cells_K: NDArray[np.int64], size: int) -> F64:
    """(R,) Matthews' correlation of confusion matrices given by their cells; not a number where it is undefined."""
    wanted_K, answers_K = np.divmod(cells_K, size)
    of_wanted = (wanted_K[:, None] == np.arange(size)).astype(np.float64)
    of_answers = (answers_K[:, None] == np.arange(size)).astype(np.float64)
    wanted_RC, answers_RC, total_R = times_RK @ of_wanted, times_RK @ of_answers, times_RK.sum(1)
    right_R = times_RK @ (wanted_K == answers_K).astype(np.float64)
    spread_R = (total_R**2 - (answers_RC**2).sum(1)) * (total_R**2 - (wanted_RC**2).sum(1))
    covariance_R = right_R * total_R - (answers_RC * wanted_RC).sum(1)
    undefined_R: F64 = np.full(len(total_R), np.nan)
    values_R: F64 = np.divide(covariance_R, np.sqrt(spread_R), out=undefined_R, where=spread_R > 0)
    return values_R
