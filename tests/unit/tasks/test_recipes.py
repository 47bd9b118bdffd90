"""The shipped recipes of tasks load, are judged by scores that there are, and say how to run them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pretextlm.config import apply_overrides, read_toml
from pretextlm.evaluation.scores.table import SCORES
from pretextlm.training.recipe import Recipe

TABLES = "task|data|training|model|tuning"
SETTING = re.compile(rf"'((?:{TABLES})\.\w+=[^']*)'|(?<![\w.'])((?:start|(?:{TABLES})\.\w+)=\S+)")
RECIPES = sorted((Path(__file__).parents[3] / "recipes" / "tasks").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_of_a_task_loads_under_its_own_name(path):
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    assert recipe.task is not None
    assert set(recipe.training_objective.metric_names) <= set(SCORES)
    assert not Path(recipe.data.train).is_absolute()
    assert f"finetune recipes/tasks/{path.name}" in path.read_text()


def comment_of(path):
    """The comment at the top of a recipe, in one line."""
    lines = [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]
    return " ".join(lines).replace("data.train='FILE", "data.train=FILE")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_setting_that_the_comment_of_a_recipe_gives_is_one(path):
    """Each as it is written there, 'key=value' or key=value, and all of them together with the recipe's own."""
    found = [quoted or bare.rstrip(".,;") for quoted, bare in SETTING.findall(comment_of(path))]
    assert any(setting.startswith("start=") for setting in found)
    for setting in found:
        Recipe.load(apply_overrides(read_toml(path), [setting.rstrip("'")]))


def test_there_are_recipes_for_every_kind_of_label():
    names = {Recipe.load(path).training_objective.name for path in RECIPES}
    assert {"text_classification", "text_regression", "token_classification", "question_answering"} <= names
