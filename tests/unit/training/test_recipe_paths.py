"""A run is used from any directory, and after it was moved together with its data."""

import shutil

import pytest
from tests.builders import make_store

from pretextlm.errors import UserError
from pretextlm.evaluation.trained_model import open_store
from pretextlm.training.initial_weights import resolve_recipe
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.recipe_paths import absolute, found_beside
from pretextlm.training.run_directory import Run

RECIPE = """
data = {store = "stores/mine", length = 32}
objective = "causal"
model = {hidden_size = 32, num_hidden_layers = 1, num_attention_heads = 2}
training = {budget_steps = 2, batch_tokens = 256, dtype = "fp32", compile = "off", validations = 0}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with a store, a recipe with a relative path, and a run trained by it in the project's directory."""
    place = tmp_path_factory.mktemp("paths") / "project"
    (place / "stores").mkdir(parents=True)
    make_store(place / "stores" / "mine", train=40, validation=10)
    (place / "recipe.toml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        pretrain("recipe.toml", "runs/one")
        student = Recipe.load("recipe.toml").dump()
        student["objective"] = {"name": "distillation", "teacher": "runs/one", "inner": {"name": "causal"}}
        pretrain(student, "runs/student")
    return place


def test_a_run_with_a_relative_store_is_used_from_another_directory(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Run.open(project / "runs" / "one")
    assert open_store(run).path == project / "stores" / "mine"
    student = Run.open(project / "runs" / "student").recipe
    assert student.objective.teacher == str(project / "runs" / "one")


def test_paths_of_a_recipe_are_found_in_the_working_directory_then_beside_it(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for recipe in (Recipe.load(project / "recipe.toml"), resolve_recipe(project / "recipe.toml")):
        assert recipe.data.store == str(project / "stores" / "mine")
    (tmp_path / "stores" / "mine").mkdir(parents=True)
    assert Recipe.load(project / "recipe.toml").data.store == "stores/mine"
    changed = Recipe.load(project / "recipe.toml", overrides=["data.store=other"])
    assert changed.data.store == "other"


def test_a_run_is_resumed_from_another_directory_and_after_it_was_moved(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pretrain(project / "recipe.toml", project / "runs" / "one", resume=True)
    shutil.copytree(project, tmp_path / "moved")
    gone = project.with_name("gone")
    project.rename(gone)
    try:
        run = Run.open("moved/runs/one")
        assert open_store(run).path == tmp_path / "moved" / "stores" / "mine"
        pretrain("moved/recipe.toml", "moved/runs/one", resume=True)
        shutil.move("moved", "again")
        assert open_store(Run.open("again/runs/one")).path == tmp_path / "again" / "stores" / "mine"
        shutil.copytree(gone, "bare", ignore=shutil.ignore_patterns("stores"))
        with pytest.raises(UserError, match="is not there") as caught:
            open_store(Run.open("bare/runs/one"))
    finally:
        gone.rename(project)
    assert str(project / "stores" / "mine") in caught.value.message
    assert str(tmp_path / "bare" / "stores" / "mine") in caught.value.message


def test_a_store_that_is_nowhere_is_refused_with_the_places_looked_at(project, tmp_path, monkeypatch):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"there is no {tmp_path}/stores/mine") as caught:
        pretrain("recipe.toml", "run")
    assert "beside the recipe" in caught.value.hint


def test_what_is_no_path_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev.conll").write_text("")
    values = {"start": "", "data": {"train": "hf:x/y:train", "validation": "dev.conll?conll=word,tag", "length": 8}}
    assert found_beside(values, tmp_path / "recipe.toml") == values
    validation = f"{tmp_path}/dev.conll?conll=word,tag"
    assert absolute(values) == {**values, "data": {**values["data"], "validation": validation}}
