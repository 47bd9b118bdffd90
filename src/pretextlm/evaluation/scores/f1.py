"""F1 = 2 · right / (answered + wanted), of one class, of all together, or the mean over classes.

It is a ratio of sums over examples, so its standard error is that of the ratio estimator; of a mean over classes, that
of the sum of each example's shares. A class that is neither answered nor wanted has an F1 of 0, as in scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.errors import UserError
from pretextlm.evaluation.scores.paired import Label, numbers, paired
from pretextlm.metric import Metric, weighted_ratios

F64 = NDArray[np.float64]
Average = Literal["micro", "macro"]


def f1(answers: Sequence[Label], wanted: Sequence[Label], positive: Label | None = None) -> Metric:
    """F1 of the positive class: 1, true or "1" unless named. Raises UserError where no label is one of them."""
    return f1_micro(answers, wanted, [positive_of(answers, wanted, positive)])


def positive_of(answers: Sequence[Label], wanted: Sequence[Label], positive: Label | None = None) -> Label:
    """The positive class of these labels. Raises UserError where there is none."""
    if positive is not None:
        return positive
    labels = {*answers, *wanted}
    found = next((label for label in (1, "1") if label in labels), None)
    if found is None and not labels <= {0, "0"}:
        known = ", ".join(sorted(map(str, labels)))
        what = f"F1 is of the label 1, and the labels are {known}."
        raise UserError(what, "Use f1_macro, f1_micro or f1_weighted.")
    return (1 if 0 in labels else "1") if found is None else found


def f1_micro(answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None = None) -> Metric:
    """F1 of all classes together; of all that there are, this is the accuracy."""
    return averaged(*_counts(answers, wanted, classes), "micro", len(wanted))


def f1_macro(answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None = None) -> Metric:
    """Mean of the F1 of each class: of those given, or of all that occur on either side."""
    return averaged(*_counts(answers, wanted, classes), "macro", len(wanted))


def f1_weighted(answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None = None) -> Metric:
    """Mean of the F1 of each class, weighted by how often it is wanted."""
    both = paired(answers, wanted, classes)
    right_CN, counts_CN = _counts(answers, wanted, classes)
    wanted_CN = both.wanted == np.arange(len(both.classes))[:, None]
    totals_C, support_C = counts_CN.sum(1), wanted_CN.sum(1)
    size = int(support_C.sum())
    if not size:
        return Metric(0.0, len(wanted), None, "share", "higher")
    f1_C = _divided(2 * right_CN.sum(1), totals_C)
    value = float(support_C @ f1_C) / size
    # An example moves the F1 of its classes, and by being wanted the weights.
    shares_CN = (2 * right_CN - f1_C[:, None] * counts_CN) * _divided(support_C, totals_C * size)[:, None]
    shares_N = (shares_CN + wanted_CN * (f1_C[:, None] - value) / size).sum(0)
    return Metric(value, len(wanted), _error(shares_N), "share", "higher")


def f1_of_classes(
    answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None = None
) -> dict[Label, Metric]:
    """The F1 of each class."""
    right_CN, counts_CN = _counts(answers, wanted, classes)
    rows = zip(paired(answers, wanted, classes).classes, right_CN, counts_CN, strict=True)
    return {label: averaged(right[None], counts[None], "micro", len(wanted)) for label, right, counts in rows}


def f1_at_3(answers: Sequence[float], wanted: Sequence[float]) -> Metric:
    """F1 of "similar" in KLUE-STS: of numbers from 0 to 5, those that are at least 3."""
    found, meant = numbers(answers, wanted)
    return f1_micro((found >= 3).tolist(), (meant >= 3).tolist(), [True])


def averaged(right_CG: F64, counts_CG: F64, average: Average, n: int) -> Metric:
    """F1 over groups of examples, each independent of the others: an example alone, or the words of a sentence.

    Args:
        right_CG, counts_CG: right answers of each class in each group, and answers plus those wanted.
        average: over all classes together, or the mean of each.
        n: how many examples there are.

    Where nothing was answered or wanted, it is 0, and its error unknown.
    """
    if average == "micro":
        right_CG, counts_CG = right_CG.sum(0, keepdims=True), counts_CG.sum(0, keepdims=True)
    some = counts_CG.sum(1) > 0
    if not some.any():
        return Metric(0.0, n, None, "share", "higher")
    weight = 1 / len(some)
    parts = [(2 * right, counts, weight) for right, counts in zip(right_CG[some], counts_CG[some], strict=True)]
    return replace(weighted_ratios(parts, "share", "higher"), n=n)


def _counts(answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None) -> tuple[F64, F64]:
    both = paired(answers, wanted, classes)
    number_C1 = np.arange(len(both.classes))[:, None]
    is_answer_CN, is_wanted_CN = both.answers == number_C1, both.wanted == number_C1
    return (is_answer_CN & is_wanted_CN).astype(np.float64), is_answer_CN.astype(np.float64) + is_wanted_CN


def _divided(one: NDArray[np.generic], other: NDArray[np.generic]) -> F64:
    """one / other, 0 where the divisor is."""
    top, bottom = one.astype(np.float64), other.astype(np.float64)
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


def _error(shares: F64) -> float | None:
    count = len(shares)
    return math.sqrt(count / (count - 1) * float((shares**2).sum())) if count > 1 else None
