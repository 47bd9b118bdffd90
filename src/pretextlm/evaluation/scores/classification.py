"""Scores of class labels, computed by scikit-learn: accuracy, F1 and its averages, Matthews correlation coefficient.

F1 = 2 · true positives / (predicted + actual positives). A class that is neither predicted nor true has an F1 of 0.
The mean of a share has its usual standard error; all others have that of the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from pretextlm.errors import UserError
from pretextlm.evaluation.scores.bootstrap import I64, RESAMPLES, measure
from pretextlm.evaluation.scores.inputs import Label, label_ids, numbers
from pretextlm.metric import Metric, mean

Average = Literal["micro", "macro", "weighted"]


def accuracy(predictions: Sequence[Label], references: Sequence[Label]) -> Metric:
    """Compute the share of predictions that equal their reference."""
    predicted, expected, _ = label_ids(predictions, references)
    return mean(predicted == expected, "share", "higher")


def f1(
    predictions: Sequence[Label],
    references: Sequence[Label],
    positive: Label | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the F1 of the positive class.

    Args:
        predictions: Predicted labels.
        references: True labels.
        positive: Label of the positive class; by default 1, True or "1".
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: No positive class is given and no label is 1.
    """
    return f1_micro(predictions, references, [positive_class(predictions, references, positive)], resamples=resamples)


def f1_micro(
    predictions: Sequence[Label],
    references: Sequence[Label],
    classes: Sequence[Label] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the F1 of the counts summed over classes: over all classes, this is the accuracy.

    Args:
        predictions: Predicted labels.
        references: True labels.
        classes: Labels that count; by default all that occur on either side.
        resamples: Number of bootstrap resamples.
    """
    return _f1_of_labels(predictions, references, classes, "micro", resamples)


def f1_macro(
    predictions: Sequence[Label],
    references: Sequence[Label],
    classes: Sequence[Label] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the unweighted mean of the F1 of each class; arguments as for :func:`f1_micro`."""
    return _f1_of_labels(predictions, references, classes, "macro", resamples)


def f1_weighted(
    predictions: Sequence[Label],
    references: Sequence[Label],
    classes: Sequence[Label] | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the mean of the F1 of each class weighted by its support; arguments as for :func:`f1_micro`."""
    return _f1_of_labels(predictions, references, classes, "weighted", resamples)


def f1_at_3(predictions: ArrayLike, references: ArrayLike, *, resamples: int = RESAMPLES) -> Metric:
    """Compute KLUE-STS's F1 of "similar": of numbers from 0 to 5, those that are at least 3."""
    predicted, expected = numbers(predictions, references)
    return f1_micro((predicted >= 3).tolist(), (expected >= 3).tolist(), [True], resamples=resamples)


def matthews(
    predictions: Sequence[Label], references: Sequence[Label], *, resamples: int = RESAMPLES, seed: int = 0
) -> Metric:
    """Compute the Matthews correlation coefficient of any number of classes (Gorodkin 2004), from -1 to 1.

    It is undefined where all predictions or all references are one class, and then 0.0 with an unknown error.
    """
    from sklearn.metrics import matthews_corrcoef

    predicted, expected, _ = label_ids(predictions, references)

    def score(rows: I64) -> float:
        if np.ptp(predicted[rows]) == 0 or np.ptp(expected[rows]) == 0:
            return math.nan
        return float(matthews_corrcoef(expected[rows], predicted[rows]))

    return measure(score, len(predicted), "", resamples=resamples, seed=seed)


def positive_class(predictions: Sequence[Label], references: Sequence[Label], positive: Label | None = None) -> Label:
    """Return the label of the positive class: `positive`, or 1 or "1", whichever kind the labels are.

    Raises:
        UserError: No label is 1 and none is given.
    """
    if positive is not None:
        return positive
    labels = {*predictions, *references}
    if not labels & {0, 1, "0", "1"}:
        known = ", ".join(sorted(map(str, labels)))
        raise UserError(
            f"F1 needs the label 1 as its positive class; the labels are {known}.",
            "Use f1_macro, f1_micro or f1_weighted.",
        )
    return 1 if labels & {0, 1} else "1"


def f1_of_ids(
    predicted: I64,
    expected: I64,
    num_classes: int,
    average: Average,
    n: int,
    *,
    every_class: bool = False,
    groups: I64 | None = None,
    num_groups: int | None = None,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the F1 of class indices.

    Args:
        predicted: (N,) predicted classes. The index `num_classes` is none of the classes and is not counted.
        expected: (N,) true classes, likewise.
        num_classes: Number of classes.
        average: How the classes are averaged, as in scikit-learn.
        n: Number reported as the metric's ``n``.
        every_class: Whether classes that do not occur count in the average, with an F1 of 0.
        groups: (N,) group of each example, by default itself.
        num_groups: Number of groups, by default `n`.
        resamples: Number of bootstrap resamples.

    Returns:
        The metric; 0.0 with an unknown error where there is nothing to count.
    """
    from sklearn.metrics import f1_score

    # Only the count of each (prediction, truth) pair matters, so that a resample is C² weighted pairs, not N examples:
    # predicted [0, 1, 0], expected [0, 1, 1]  →  pairs (0, 0), (0, 1), (1, 1), pair_of_example [0, 2, 1]
    pairs_P2, pair_of_example = np.unique(np.stack([predicted, expected], 1), axis=0, return_inverse=True)

    def score(rows: I64) -> float:
        counts_P = np.bincount(pair_of_example[rows], minlength=len(pairs_P2))
        hypothesis, truth = pairs_P2[counts_P > 0].T
        present = np.unique(truth if average == "weighted" else np.concatenate([hypothesis, truth]))
        if not (present < num_classes).any():
            return math.nan
        # Without `every_class`, weighted: a class that is predicted alone has a weight of 0.
        labels = np.arange(num_classes) if every_class else present[present < num_classes]
        weights = counts_P[counts_P > 0]
        return float(
            f1_score(truth, hypothesis, labels=labels, average=average, zero_division=0, sample_weight=weights)
        )

    return measure(score, n, "share", groups=groups, num_groups=num_groups, resamples=resamples)


def _f1_of_labels(
    predictions: Sequence[Label],
    references: Sequence[Label],
    classes: Sequence[Label] | None,
    average: Average,
    resamples: int,
) -> Metric:
    predicted, expected, num_classes = label_ids(predictions, references, classes)
    return f1_of_ids(
        predicted,
        expected,
        num_classes,
        average,
        len(predicted),
        every_class=classes is not None,
        resamples=resamples,
    )
