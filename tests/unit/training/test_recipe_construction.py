"""A recipe that is constructed in Python is the one that is loaded from a file, and fails with the same error."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from pretextlm.config import read_toml, write_toml
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig, NormConfig
from pretextlm.objectives.causal import Causal
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.study.plan import StudyPlan
from pretextlm.tasks.registry import TASKS
from pretextlm.tasks.text_classification import TextClassification
from pretextlm.training.budget import Budget
from pretextlm.training.recipe import DataConfig, EvaluationConfig, Recipe, TrainingConfig
from pretextlm.training.trainable_parameters import TuningConfig

RECIPES = Path(__file__).parents[3] / "recipes"
PARTS = {"data": DataConfig, "training": TrainingConfig, "tuning": TuningConfig, "evaluation": EvaluationConfig}


def shipped() -> dict[str, dict]:
    """Tables of every recipe that is shipped, and of every run of a shipped study of objectives."""
    paths = [*RECIPES.glob("*.toml"), *RECIPES.glob("tasks/*.toml")]
    found = {path.stem: values for path in sorted(paths) if "entries" not in (values := read_toml(path))}
    for path in sorted(RECIPES.glob("studies/*.toml")):
        found |= {f"{path.stem} {run.directory}": run.recipe for run in StudyPlan.load(path).runs()}
    return found


SHIPPED = shipped()


def constructed(values: dict) -> Recipe:
    """The recipe of these tables, built of objects with keyword arguments, as a Python script would."""
    parts = dict(values)
    for kind in {"objective", "task"} & parts.keys():
        options = {"name": parts[kind]} if isinstance(parts[kind], str) else dict(parts[kind])
        registry = OBJECTIVES if kind == "objective" else TASKS
        parts[kind] = registry[options.pop("name")](**options)
    for name, cls in PARTS.items():
        if name in parts:
            parts[name] = cls(**parts[name])
    if "model" in parts and "preset" not in parts["model"]:
        parts["model"] = ModelConfig(**parts["model"])
    return Recipe(**parts)


@pytest.mark.parametrize("name", SHIPPED)
def test_constructed_loaded_and_dumped_are_equal(name, tmp_path):
    values = SHIPPED[name]
    loaded = Recipe.load(values)
    assert Recipe(**values) == loaded
    assert constructed(values) == loaded
    assert Recipe.load(tomllib.loads(write_toml(loaded.dump()))) == loaded
    loaded.save(tmp_path / "recipe.toml")
    assert Recipe.load(tmp_path / "recipe.toml") == loaded


def test_the_objective_is_an_instance_a_table_or_a_name():
    data, training = DataConfig(store="x"), TrainingConfig(budget_tokens=2e6)
    of_a_name = Recipe(data=data, objective="masked", training=training)
    assert of_a_name == Recipe(data=data, objective={"name": "masked"}, training=training)
    assert of_a_name == Recipe(data=data, objective=Masked(), training=training)
    recipe = Recipe(data=data, objective=Masked(rate=0.3), training=training)
    assert recipe.model.architecture == "encoder"
    assert recipe.training_objective == Masked(rate=0.3) == recipe.training_objective
    assert recipe.task is None


def test_a_model_is_given_by_its_preset_alone():
    tables = {"data": {"store": "x"}, "objective": "masked", "training": {"budget_steps": 1}}
    recipe = Recipe(**tables, model="bert-base-uncased")
    assert recipe == Recipe.load({**tables, "model": {"preset": "bert-base-uncased"}})
    assert recipe.model.hidden_size == 768


def test_the_default_architecture_and_token_types_follow_the_objective_unless_they_are_given():
    data, training = DataConfig(store="x"), TrainingConfig(budget_steps=1)

    def model(objective, **fields):
        return Recipe(data=data, objective=objective, training=training, model=ModelConfig(**fields)).model

    assert model("next_sentence", hidden_size=64).type_vocab_size == 2
    assert model("next_sentence", type_vocab_size=0).type_vocab_size == 0
    assert model(Masked(predict="next")).architecture == "encoder"
    assert model(Masked(predict="next"), architecture="decoder").architecture == "decoder"
    assert model("masked", norm=NormConfig(kind="layer")).norm.kind == "layer"


def test_a_task_brings_its_training_defaults_unless_a_value_is_given():
    data = DataConfig(train="a.jsonl", validation="b.jsonl")
    task = TextClassification(text="sentence")
    by_default = Recipe(data=data, task=task).training
    assert by_default.budget == Budget("epochs", 3.0)
    assert by_default.optimizer == "adamw"
    assert Recipe(data=data, task=task, training=TrainingConfig(learning_rate=1e-4)).training == by_default.model_copy(
        update={"learning_rate": 1e-4}
    )
    tuned = Recipe(data=data, task=task, training=TrainingConfig(budget_steps=7, batch_rows=0, optimizer="muon"))
    assert tuned.training.budget == Budget("steps", 7)
    assert tuned.training.batch_rows == 0, "equal to the field's default, and given all the same"
    assert tuned.training.optimizer == "muon"
    assert tuned.objective is None


def test_paths_are_given_as_paths_too():
    recipe = Recipe(data=DataConfig(store=Path("a") / "b"), objective="causal", training={"budget_steps": 1})
    assert recipe.data.store == str(Path("a") / "b")


def test_an_imported_model_has_no_data():
    tables = {"objective": Masked(), "training": {"budget_steps": 1}, "imported_from": "hf:some/model"}
    recipe = Recipe(data=DataConfig(length=128), **tables)
    assert Recipe.load(recipe.dump()) == recipe


GOOD = {"data": {"store": "s"}, "objective": {"name": "causal"}, "training": {"budget_steps": 5}}
TASK = {"data": {"train": "a", "validation": "b"}, "task": {"name": "text_classification"}}


def changed(base: dict, **tables: dict) -> dict:
    return {**base, **{name: {**base.get(name, {}), **table} for name, table in tables.items()}}


WRONG = {
    "unknown key": changed(GOOD, training={"learning_rat": 1.0}),
    "unknown option": changed(GOOD, objective={"name": "masked", "rat": 0.1}),
    "wrong option": changed(GOOD, objective={"name": "masked", "rate": 2.0}),
    "wrong type": changed(GOOD, training={"learning_rate": "fast"}),
    "two budgets": changed(GOOD, training={"budget_tokens": 5.0}),
    "no budget": {**GOOD, "training": {"learning_rate": 1.0}},
    "unfit architecture": changed(GOOD, model={"architecture": "encoder"}),
    "odd width": changed(GOOD, model={"hidden_size": 33}),
    "nested value": changed(GOOD, model={"norm": {"eps": -1.0}}),
    "no store": {**GOOD, "data": {}},
    "an empty store": {**GOOD, "data": {"store": ""}},
    "no validation": changed(TASK, data={"validation": ""}),
    "no objective": {key: table for key, table in GOOD.items() if key != "objective"},
    "both": {**GOOD, "task": {"name": "text_classification"}},
    "thaw with muon": changed(GOOD, tuning={"thaw": 0.5}),
    "adapters and thaw": changed(GOOD, tuning={"thaw": 0.5, "lora": {"rank": 2}}, training={"optimizer": "adamw"}),
    "evaluation": changed(GOOD, evaluation={"blanks": 0}),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_value_is_the_same_error_either_way(fault):
    values = WRONG[fault]
    with pytest.raises(UserError) as loading:
        Recipe.load(values)
    with pytest.raises(UserError) as constructing:
        Recipe(**values)
    with pytest.raises(UserError) as building:
        constructed(values)
    assert str(constructing.value) == str(loading.value)
    assert str(building.value) == str(loading.value)


def test_an_objective_and_a_task_are_not_taken_for_each_other():
    training = TrainingConfig(budget_steps=1)
    with pytest.raises(UserError, match="task"):
        Recipe(data=DataConfig(store="x"), objective=TextClassification(text="sentence"), training=training)
    with pytest.raises(UserError, match="objective"):
        Recipe(data=DataConfig(train="a", validation="b"), task=Causal(), training=training)
