"""Labels of records that belong together, as the possible answers to one question (MultiRC): groups are what counts.

    question   1  1  1   2  2        group 1 is all right, group 2 is not: exact match 1/2
    answer     a  b  a   b  b
    wanted     a  b  a   b  a

Records of one group are alike, so that standard errors are over groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from pretextlm.evaluation.scores.f1 import averaged, positive_of
from pretextlm.evaluation.scores.paired import Label, paired, same_length
from pretextlm.metric import Metric, mean


def group_accuracy(answers: Sequence[Label], wanted: Sequence[Label], groups: Sequence[Hashable]) -> Metric:
    """Share of groups whose records are all right: MultiRC's exact match."""
    both, group_N = paired(answers, wanted), _numbered(groups, wanted)
    wrong_G = np.bincount(group_N, both.answers != both.wanted)
    return mean(wrong_G == 0, "share", "higher")


def group_f1(
    answers: Sequence[Label], wanted: Sequence[Label], groups: Sequence[Hashable], positive: Label | None = None
) -> Metric:
    """F1 of the positive class over the records of all groups: MultiRC's F1a. Its standard error is over groups."""
    number = positive_of(answers, wanted, positive)
    both, group_N = paired(answers, wanted, [number]), _numbered(groups, wanted)
    found, meant = both.answers == 0, both.wanted == 0
    right_G = np.bincount(group_N, found & meant).astype(np.float64)
    counts_G = np.bincount(group_N, found.astype(np.int64) + meant).astype(np.float64)
    return averaged(right_G[None], counts_G[None], "micro", len(wanted))


def _numbered(groups: Sequence[Hashable], wanted: Sequence[Label]) -> NDArray[np.int64]:
    """(N,) groups numbered from 0."""
    same_length(groups, wanted)
    numbers: dict[Hashable, int] = {}
    return np.fromiter((numbers.setdefault(group, len(numbers)) for group in groups), np.int64, len(groups))
