"""Scores over groups of records that belong together, as the candidate answers to one question (MultiRC).

    question      1  1  1   2  2        group 1 is all correct, group 2 is not: exact match 1/2
    predictions   a  b  a   b  b
    references    a  b  a   b  a

Records of one group are not independent, so standard errors are over groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from pretextlm.evaluation.scores.bootstrap import I64, RESAMPLES
from pretextlm.evaluation.scores.classification import f1_of_ids, positive_class
from pretextlm.evaluation.scores.inputs import Label, check_lengths, label_ids
from pretextlm.metric import Metric, mean


def group_accuracy(predictions: Sequence[Label], references: Sequence[Label], groups: Sequence[Hashable]) -> Metric:
    """Compute the share of groups whose records are all correct: MultiRC's exact match."""
    predicted, expected, _ = label_ids(predictions, references)
    wrong_G = np.bincount(_group_ids(groups, references), predicted != expected)
    return mean(wrong_G == 0, "share", "higher")


def group_f1(
    predictions: Sequence[Label],
    references: Sequence[Label],
    groups: Sequence[Hashable],
    positive: Label | None = None,
    *,
    resamples: int = RESAMPLES,
) -> Metric:
    """Compute the F1 of the positive class over all records: MultiRC's F1a, with a standard error over groups.

    Args:
        predictions: Predicted labels.
        references: True labels.
        groups: Group of each record.
        positive: Label of the positive class; by default 1, True or "1".
        resamples: Number of bootstrap resamples.
    """
    label = positive_class(predictions, references, positive)
    predicted, expected, _ = label_ids(predictions, references, [label])
    ids = _group_ids(groups, references)
    return f1_of_ids(
        predicted,
        expected,
        1,
        "micro",
        len(predicted),
        groups=ids,
        num_groups=int(ids.max()) + 1,
        resamples=resamples,
    )


def _group_ids(groups: Sequence[Hashable], references: Sequence[Label]) -> I64:
    """Return the (N,) index of each record's group, in order of first occurrence."""
    check_lengths(groups, references)
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(group, len(index)) for group in groups], np.int64)
