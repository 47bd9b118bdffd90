"""The quick start compares the three classic objectives at sizes that suit its minutes, chosen once."""

from __future__ import annotations

import pytest
from tests.builders import make_store

from pretextlm.config import write_toml
from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.study.quickstart import classic_study, seconds_of_run
from pretextlm.study.sized_plan import sized_plan
from pretextlm.training import auto_size


def test_the_quick_start_is_of_three_objectives_that_share_its_minutes(tmp_path):
    plan = classic_study(tmp_path, {"seconds": seconds_of_run(6, 2)}, seeds=2)
    assert [condition.name for condition in plan.objectives] == ["causal", "masked", "span_corruption"]
    assert len(OBJECTIVES) > 3
    assert len(plan.runs()) == 6
    assert plan.budget.seconds == 60
    plan.check()


def test_the_sizes_are_chosen_once_and_given_values_stay(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store")
    plan = classic_study(store.path, {"seconds": 60})
    plan = plan.model_copy(update={"model": {"preset": "auto", "num_attention_heads": 2}})
    monkeypatch.setattr(auto_size, "measured_throughput", lambda *args: 1e11)
    first = sized_plan(plan, tmp_path / "study")
    assert first.model == {}
    assert first.length == 128
    for run in first.runs():
        assert run.recipe["model"]["num_attention_heads"] == 2
        assert {"hidden_size", "num_hidden_layers"} <= run.recipe["model"].keys()
        assert {"batch_tokens", "learning_rate", "budget_seconds"} <= run.recipe["training"].keys()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.toml").write_text(write_toml(first.plain()))
    monkeypatch.setattr(auto_size, "measured_throughput", lambda *args: 1e15)
    assert sized_plan(plan, tmp_path / "study").plain() == first.plain()
    assert sized_plan(plan, tmp_path / "another").plain() != first.plain()


def test_a_plan_with_sizes_of_its_own_is_left_as_it_is(tmp_path):
    plan = classic_study(tmp_path / "no store", {"flops": 1e12}).model_copy(update={"model": {"hidden_size": 64}})
    assert sized_plan(plan, tmp_path) is plan


@pytest.mark.parametrize("kind", ["flops", "tokens"])
def test_equal_budgets_in_any_unit(tmp_path, kind):
    plan = sized_plan(classic_study(make_store(tmp_path / "store").path, {kind: 2e6}), tmp_path / "study")
    assert {run.recipe["training"][f"budget_{kind}"] for run in plan.runs()} == {2e6}
