"""A recipe is refused at its first fault, by name and with a way out."""

import pytest

from pretextlm.config import write_toml
from pretextlm.errors import UserError
from pretextlm.training.recipe import Recipe, overridden

GOOD = {"data": {"store": "s"}, "objective": {"name": "causal"}, "training": {"budget_steps": 5}}


def changed(**tables):
    return {**GOOD, **{name: {**GOOD.get(name, {}), **table} for name, table in tables.items()}}


def test_the_architecture_follows_the_objective():
    found = {
        name: Recipe.load(changed(objective={"name": name})).model.architecture
        for name in ("causal", "masked", "span_corruption")
    }
    assert found == {"causal": "decoder", "masked": "encoder", "span_corruption": "encoder_decoder"}


def test_defaults_are_written_out_and_read_back_equal():
    import tomllib

    recipe = Recipe.load(changed(objective={"name": "masked", "rate": 0.4}, model={"hidden_size": 64}))
    text = write_toml(recipe.dump())
    assert "learning_rate" in text
    assert Recipe.load(tomllib.loads(text)) == recipe


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        (changed(training={"learning_rat": 1.0}), "training.learning_rat", "learning_rate"),
        (changed(objective={"name": "caussal"}), "caussal", "causal"),
        (changed(objective={"name": "masked", "rat": 0.1}), "'rat'", "rate"),
        (changed(training={"learning_rate": "fast"}), "training.learning_rate", "fast"),
        (changed(training={"learning_rate": float("nan")}), "training.learning_rate", ""),
        (changed(training={"log_every": True}), "training.log_every", "true"),
        (changed(training={"budget_tokens": 5.0}), "exactly one", ""),
        (changed(model={"hidden_size": 33}), "even head width|does not divide", ""),
        (changed(model={"architecture": "encoder"}), "encoder", "decoder"),
        ({k: v for k, v in GOOD.items() if k != "data"}, "'data'", "Add"),
        ({k: v for k, v in GOOD.items() if k != "objective"}, "objective.name", "Add"),
    ],
)
def test_each_fault_is_named_with_a_hint(values, message, hint):
    with pytest.raises(UserError, match=message) as caught:
        Recipe.load(values)
    assert hint in caught.value.hint


def test_a_budget_on_the_command_line_takes_the_place_of_the_recipes():
    values = {"training": {"budget_tokens": 1e6, "learning_rate": 0.1}, "name": "a"}
    assert overridden(values, ["training.budget_seconds=60", "name=b"]) == {
        "training": {"budget_seconds": 60, "learning_rate": 0.1},
        "name": "b",
    }
    assert overridden(values, ["training.learning_rate=0.2"])["training"]["budget_tokens"] == 1e6
