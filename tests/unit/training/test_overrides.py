"""Changes to a recipe on the command line."""

from __future__ import annotations

import pytest

from pretextlm.training.recipe import Recipe, overridden

RECIPE = {
    "data": {"store": "a"},
    "objective": {"name": "causal"},
    "training": {"budget_tokens": 1e6, "learning_rate": 0.01},
}


@pytest.mark.parametrize("budget", ["budget_steps=7", "budget_tokens=5e5", "budget_flops=1e12", "budget_seconds=60"])
def test_a_budget_takes_the_place_of_the_recipes_own(budget):
    name, value = budget.split("=")
    values = overridden(RECIPE, [f"training.{budget}", "data.store=b"])
    assert values["training"] == {name: float(value), "learning_rate": 0.01}
    assert getattr(Recipe.load(values).training, name) == float(value)
    assert RECIPE["training"]["budget_tokens"] == 1e6


def test_without_another_budget_the_recipes_own_stays():
    assert overridden(RECIPE, ["training.learning_rate=0.1"])["training"] == {
        "budget_tokens": 1e6,
        "learning_rate": 0.1,
    }
    assert overridden({}, ["training.budget_steps=3"]) == {"training": {"budget_steps": 3}}
