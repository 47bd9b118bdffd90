"""The share of right answers."""

from __future__ import annotations

from collections.abc import Sequence

from pretextlm.evaluation.scores.paired import Label, paired
from pretextlm.metric import Metric, mean


def accuracy(answers: Sequence[Label], wanted: Sequence[Label]) -> Metric:
    """Share of answers that are the label wanted."""
    both = paired(answers, wanted)
    return mean(both.answers == both.wanted, "share", "higher")
