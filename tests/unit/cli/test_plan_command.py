"""`pretextlm plan`: numbers for people and programs, and a recipe that can be trained."""

from __future__ import annotations

import json

import pytest
from tests.builders import make_store
from tests.commands import printed_by

from pretextlm.cli.compare import compare
from pretextlm.cli.plan import plan
from pretextlm.errors import UserError
from pretextlm.training.recipe import Recipe


def run(*arguments: str) -> str:
    return printed_by(plan, *arguments)


def test_each_objective_has_a_recipe_that_loads_with_the_budget():
    found = json.loads(run("--budget", "2e12flops", "--json"))
    assert [one["objective"] for one in found["plans"]] == ["causal", "masked", "span_corruption"]
    for one in found["plans"]:
        recipe = Recipe.load(one["recipe"])
        assert recipe.training.budget_flops == 2e12
        assert one["loss"] > 2
        assert one["parameters"] > 10_000
        assert one["memory"] > 4 * 4 * one["parameters"] * 0.5
        assert one["epochs"] is None


def test_a_known_device_trains_more_than_another_and_a_store_says_how_often_it_is_read(tmp_path):
    store = make_store(tmp_path / "store")
    sizes = {
        device: json.loads(
            run("--budget", "10min", "--device", device, "--objective", "causal", "--data", str(store.path), "--json")
        )["plans"][0]
        for device in ("t4", "H200")
    }
    assert sizes["H200"]["flops"] / sizes["t4"]["flops"] == pytest.approx(989 / 65)
    assert sizes["t4"]["read_too_often"]
    assert sizes["t4"]["recipe"]["training"]["weight_decay"] > 0
    assert sizes["t4"]["loss"] is None


def test_the_recipe_is_written_and_said(tmp_path):
    file = tmp_path / "mine.toml"
    printed = run("--budget", "1e13flops", "--objective", "masked", "--out", str(file))
    assert f"pretextlm pretrain {file}" in printed
    assert "expected validation loss" in printed
    assert Recipe.load(file).objective.name == "masked"
    with pytest.raises(UserError, match="one objective"):
        run("--budget", "1e13flops", "--out", str(file))


def test_compare_needs_a_plan_or_a_store():
    with pytest.raises(UserError, match="Give a plan or a store"):
        compare(None)
