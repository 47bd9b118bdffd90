"""The quick start compares the three classic objectives, whatever others there are."""

from __future__ import annotations

from pathlib import Path

from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.study.quickstart import quickstart_plan


def test_the_quick_start_is_of_three_objectives_that_share_its_minutes() -> None:
    plan = quickstart_plan(Path("store"), minutes=6, seeds=2)
    assert [condition.name for condition in plan.objectives] == ["causal", "masked", "span_corruption"]
    assert len(OBJECTIVES) > 3
    assert len(plan.runs()) == 6
    assert plan.budget.seconds == 60
    plan.check()
