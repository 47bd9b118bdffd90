"""The shipped recipes of tasks load, are judged by scores that there are, and say how to run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretextlm.evaluation.scores.table import SCORES
from pretextlm.training.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "tasks").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_of_a_task_loads_under_its_own_name(path):
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    assert recipe.task is not None
    assert set(recipe.training_objective.metric_names) <= set(SCORES)
    assert not Path(recipe.data.train).is_absolute()
    assert f"finetune recipes/tasks/{path.name}" in path.read_text()


def test_there_are_recipes_for_every_kind_of_label():
    names = {Recipe.load(path).training_objective.name for path in RECIPES}
    assert {"text_classification", "text_regression", "token_classification", "question_answering"} <= names
