"""Scores of several labels per example, computed by scikit-learn.

predictions   [joy]   [joy, anger]        joy: F1 = 2/3    anger: F1 = 1
references    []      [joy, anger]        micro: 2 · 2 / (3 + 2) = 0.8    macro: (2/3 + 1) / 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.evaluation.scores.bootstrap import I64, RESAMPLES, measure
from pretextlm.evaluation.scores.inputs import check_lengths
from pretextlm.metric import Metric, mean

Labels = Sequence[Sequence[str]]


def multi_label_f1_micro(predictions: Labels, references: Labels, *, resamples: int = RESAMPLES) -> Metric:
    """Compute the F1 of the counts summed over labels."""
    return _f1(predictions, references, "micro", resamples)


def multi_label_f1_macro(predictions: Labels, references: Labels, *, resamples: int = RESAMPLES) -> Metric:
    """Compute the unweighted mean of the F1 of each label; that of a label that never occurs is 0."""
    return _f1(predictions, references, "macro", resamples)


def subset_accuracy(predictions: Labels, references: Labels) -> Metric:
    """Compute the share of examples whose labels are all predicted, and no others."""
    predicted, expected = _indicators(predictions, references)
    return mean((predicted == expected).all(1), "share", "higher")


def _f1(predictions: Labels, references: Labels, average: Literal["micro", "macro"], resamples: int) -> Metric:
    from sklearn.metrics import f1_score

    predicted, expected = _indicators(predictions, references)

    def score(rows: I64) -> float:
        return float(f1_score(expected[rows], predicted[rows], average=average, zero_division=0))

    return measure(score, len(predicted), "share", resamples=resamples)


def _indicators(predictions: Labels, references: Labels) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns (N, C) which labels each example has, of all that occur on either side."""
    from sklearn.preprocessing import MultiLabelBinarizer

    check_lengths(predictions, references)
    encoder = MultiLabelBinarizer().fit([*predictions, *references])
    return encoder.transform(predictions).astype(bool), encoder.transform(references).astype(bool)
