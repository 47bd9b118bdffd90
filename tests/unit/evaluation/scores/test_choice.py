"""Ties among scored candidates count by chance."""

import numpy as np
import pytest

from pretextlm.evaluation.scores.choice import credit, is_tied


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        ([1.0, 2.0], {1}, 1.0),
        ([1.0, 2.0], {0}, 0.0),
        ([2.0, 2.0], {0}, 0.5),
        ([2.0, 2.0, 1.0], {2}, 0.0),
        ([0.0] * 10, {7}, 0.1),
        ([3.0, 3.0, 3.0, 1.0], {0, 1, 3}, 2 / 3),
        ([-np.inf, -np.inf], {0}, 0.5),
    ],
)
def test_credit_is_the_probability_of_a_right_choice_among_the_best(scores, right, expected):
    assert credit(scores, right) == pytest.approx(expected)


def test_only_the_highest_scores_make_a_tie():
    assert is_tied([1.0, 1.0, 0.0])
    assert not is_tied([1.0, 0.0, 0.0])
