"""A plan is checked as a whole before anything is trained, and expands to the recipes it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pretextlm.config import read_toml, write_toml
from pretextlm.errors import UserError
from pretextlm.objectives.masked import Masked
from pretextlm.study.plan import Budget, StudyPlan
from pretextlm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[3]


def plan(**changes: Any) -> StudyPlan:
    values = {"store": "store", "objectives": ["causal", "masked"], "seeds": [1, 2], "budget": {"seconds": 5.0}}
    return StudyPlan.parse(values | changes)


def refusal(**changes: Any) -> UserError:
    with pytest.raises(UserError) as caught:
        plan(**changes).check()
    return caught.value


def test_runs_come_seed_by_seed_so_that_an_interrupted_study_has_whole_rounds() -> None:
    assert [run.directory for run in plan().runs()] == ["causal-seed1", "masked-seed1", "causal-seed2", "masked-seed2"]


def test_every_run_gets_the_same_recipe_but_for_objective_seed_and_architecture() -> None:
    shared = {"model": {"hidden_size": 64}, "training": {"learning_rate": 1e-3}, "evaluation": {"blanks": 9}}
    causal, masked, *_ = (run.recipe for run in plan(length=32, **shared).runs())
    assert causal["data"] == masked["data"] == {"store": "store", "length": 32}
    assert causal["training"] == masked["training"] == {"learning_rate": 1e-3, "budget_seconds": 5.0}
    assert causal["evaluation"] == masked["evaluation"] == {"blanks": 9}
    assert causal["model"] == {"hidden_size": 64, "architecture": "decoder"}
    assert masked["model"] == {"hidden_size": 64, "architecture": "encoder"}


@pytest.mark.parametrize("budget", [{"tokens": 1000}, {"flops": 1e12}, {"seconds": 3}])
def test_every_kind_of_budget_makes_a_recipe_that_loads(budget: dict[str, float]) -> None:
    for run in plan(budget=budget).runs():
        loaded = Recipe.load(run.recipe).training.budget
        assert {loaded.kind: loaded.size} == budget


def test_an_objective_as_a_table_carries_options_label_and_its_own_model() -> None:
    table = {"name": "masked", "rate": 0.4, "label": "masked-40", "model": {"num_hidden_layers": 2}}
    run = plan(objectives=["masked", table], model={"num_hidden_layers": 6}).runs()[1]
    assert run.directory == "masked-40-seed1"
    assert run.recipe["objective"] == {"name": "masked", "rate": 0.4}
    assert run.recipe["model"]["num_hidden_layers"] == 2
    assert Recipe.load(run.recipe).training_objective.rate == 0.4  # type: ignore[attr-defined]


def test_the_resolved_plan_reads_back_as_the_same_plan(tmp_path: Path) -> None:
    table = {"name": "masked", "rate": 0.4, "label": "m"}
    before = plan(objectives=["causal", table], training={"learning_rate": 1e-3}, name='quoted "name"')
    (tmp_path / "study.toml").write_text(write_toml(before.plain()), encoding="utf-8")
    after = StudyPlan.load(tmp_path / "study.toml")
    assert after == before
    assert after.plain() == before.plain() == read_toml(tmp_path / "study.toml")


def test_overrides_change_the_plan(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(write_toml(plan().plain()), encoding="utf-8")
    changed = StudyPlan.load(tmp_path / "s.toml", ["seeds=[7]", "budget.seconds=1.5"])
    assert changed.seeds == (7,)
    assert changed.budget.amount == 1.5


def test_an_unknown_objective_is_refused_with_the_nearest_name() -> None:
    error = refusal(objectives=["causl"])
    assert "'causl'" in error.message
    assert "'causal'" in error.hint


def test_an_unknown_option_of_an_objective_is_refused() -> None:
    assert "'rat'" in refusal(objectives=[{"name": "masked", "rat": 0.3}]).message


def test_two_objectives_with_one_label_are_refused() -> None:
    error = refusal(objectives=["masked", {"name": "masked", "rate": 0.3}])
    assert "labelled 'masked'" in error.message


def test_labels_that_differ_in_case_alone_are_refused_as_directories_may_not_tell_them_apart() -> None:
    assert (
        "labelled 'm'"
        in refusal(objectives=[{"name": "masked", "label": "M"}, {"name": "causal", "label": "m"}]).message
    )


@pytest.mark.parametrize("label", ["../up", "a/b", "", ".hidden", "a b", "x" * 65])
def test_a_label_that_is_no_directory_name_is_refused(label: str) -> None:
    assert "label" in refusal(objectives=[{"name": "masked", "label": label}]).message


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_that_are_empty_repeated_or_negative_are_refused(seeds: list[int]) -> None:
    assert "seeds must be different integers of at least 0" in refusal(seeds=seeds).message


@pytest.mark.parametrize("budget", [{}, {"seconds": 1.0, "tokens": 5}, {"seconds": -1.0}, {"tokens": 0}, {"hours": 1}])
def test_a_budget_is_exactly_one_positive_amount(budget: dict[str, float]) -> None:
    assert "budget" in refusal(budget=budget).message


@pytest.mark.parametrize("key", ["budget_seconds", "budget_steps", "budget_tokens"])
def test_a_second_budget_among_the_training_options_is_refused(key: str) -> None:
    assert key in refusal(training={key: 10}).message


def test_an_architecture_that_does_not_suit_an_objective_is_refused_by_name() -> None:
    error = refusal(model={"architecture": "encoder"})
    assert "'causal'" in error.message
    assert "decoder" in error.hint


def test_the_shipped_plans_are_valid() -> None:
    plans = sorted((ROOT / "recipes" / "studies").glob("*.toml"))
    assert plans
    for path in plans:
        for run in StudyPlan.load(path).runs():
            Recipe.load(run.recipe, where=str(path))


def test_a_plan_in_python_takes_objectives_and_its_budget_as_the_file_does(tmp_path: Path) -> None:
    in_python = StudyPlan(
        store=tmp_path, objectives=["causal", Masked(rate=0.4)], seeds=[1], budget=Budget(tokens=int(2e6))
    )
    tables = {"store": str(tmp_path), "seeds": [1], "budget": {"tokens": 2e6}}
    as_tables = StudyPlan.parse({**tables, "objectives": ["causal", {"name": "masked", "rate": 0.4}]})
    assert in_python == as_tables
    assert StudyPlan.parse(in_python.plain()) == in_python
