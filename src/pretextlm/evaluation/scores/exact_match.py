"""Texts that are just what was wanted."""

from __future__ import annotations

from collections.abc import Sequence

from pretextlm.evaluation.scores.paired import same_length
from pretextlm.metric import Metric, mean


def exact_match(answers: Sequence[str], wanted: Sequence[str | Sequence[str]]) -> Metric:
    """Share of texts that are the one wanted, or one of those wanted, but for spaces around them."""
    same_length(answers, wanted)
    sides = zip(answers, wanted, strict=True)
    right = [answer.strip() in map(str.strip, [one] if isinstance(one, str) else one) for answer, one in sides]
    return mean(right, "share", "higher")
