"""Schedules have the shape their names promise."""

import pytest

from pretextlm.training.schedules import learning_rate_multiplier as rate


def test_wsd_rises_stays_and_falls():
    values = [rate(p, "wsd", 0.1, 0.4, 0.0) for p in (0.0, 0.05, 0.1, 0.3, 0.6, 0.8, 1.0)]
    assert values == pytest.approx([0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.0])


def test_cosine_and_linear_fall_over_all_the_rest_to_the_final_rate():
    for name, middle in (("cosine", 0.55), ("linear", 0.55)):
        values = [rate(p, name, 0.2, 0.0, 0.1) for p in (0.2, 0.6, 1.0)]
        assert values == pytest.approx([1.0, middle, 0.1])


def test_no_warm_up_and_no_cooldown_is_constant():
    assert {rate(p / 10, "wsd", 0.0, 0.0, 0.0) for p in range(11)} == {1.0}
