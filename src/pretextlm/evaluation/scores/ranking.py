"""Area under the precision-recall curve: how well probabilities rank records, at any threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pretextlm.evaluation.scores.bootstrap import I64, measure
from pretextlm.metric import Metric

RESAMPLES = 50
"""Fewer than elsewhere, since each needs one curve per class; the standard error is known to within about 10 %."""


def auprc(probabilities: ArrayLike, references: Sequence[int], *, resamples: int = RESAMPLES, seed: int = 0) -> Metric:
    """Compute the mean over classes of the area under the precision-recall curve, as KLUE-RE does (Park et al. 2021).

    The curve of a class is that of the class against all others, interpolated linearly (scikit-learn's
    ``auc(recall, precision)``). A class without a true example has no curve and is left out.

    Args:
        probabilities: (N, C) probability of each class.
        references: (N,) index of the true class.
        resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: The shapes do not match, or a reference is not one of the classes.
    """
    from sklearn.metrics import auc, precision_recall_curve

    probabilities_NC, references_N = np.asarray(probabilities, np.float64), np.asarray(references, np.int64)
    if probabilities_NC.ndim != 2 or len(probabilities_NC) != len(references_N) or not len(references_N):
        raise ValueError(f"{len(references_N)} references do not match probabilities of shape {probabilities_NC.shape}")
    if references_N.min() < 0 or references_N.max() >= probabilities_NC.shape[1]:
        raise ValueError("a reference is not one of the classes")

    def score(rows: I64) -> float:
        areas = []
        for label in np.unique(references_N[rows]):
            precision, recall, _ = precision_recall_curve(references_N[rows] == label, probabilities_NC[rows, label])
            areas.append(auc(recall, precision))
        return float(np.mean(areas))

    return measure(score, len(references_N), "share", resamples=resamples, seed=seed)
