"""`pretextlm recipes`: the recipes of the package have names, with which every command finds them anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.commands import printed_by

from pretextlm.cli.recipes import recipes
from pretextlm.errors import UserError
from pretextlm.shipped_recipes import recipe_file, shipped_recipes
from pretextlm.study.task_plan import load_plan
from pretextlm.training.initial_weights import resolve_recipe

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments: str) -> str:
    return printed_by(recipes, *arguments)


def test_every_recipe_of_the_repository_is_listed_with_its_command_and_what_it_is():
    listed = json.loads(run("--json"))["recipes"]
    there = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/**/*.toml")}
    assert {entry["name"] for entry in listed} == there
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["bert"] == {
        "name": "bert",
        "command": "pretrain",
        "about": "BERT: fill the blanks, and tell whether one passage follows another",
    }
    assert by_name["tasks/swag"]["about"].endswith("(Devlin et al. 2019, section 4.4)")
    assert {by_name[name]["command"] for name in ("mnli_three_ways", "studies/eight_objectives")} == {"compare"}
    assert all(len(entry["about"]) > 15 for entry in listed)
    printed = run()
    assert all(entry["name"] in printed for entry in listed)


def test_no_two_recipes_share_the_last_part_of_their_name():
    stems = [recipe.path.stem for recipe in shipped_recipes().values()]
    assert len(set(stems)) == len(stems)


def test_a_recipe_is_printed_or_copied_as_it_is(tmp_path):
    text = (ROOT / "recipes/tasks/sst2.toml").read_text(encoding="utf-8")
    assert run("tasks/sst2") == run("sst2") == text
    copy = tmp_path / "new" / "mine.toml"
    assert run("sst2", "--out", str(copy)) == f"{copy}: pretextlm finetune {copy}\n"
    assert copy.read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match="exists already"):
        run("bert", "--out", str(copy))
    with pytest.raises(UserError, match="Did you mean 'bert'"):
        run("bret")


@pytest.mark.parametrize("given", ["masked", "masked.toml", "recipes/masked.toml"])
def test_names_and_paths_of_a_checkout_are_found_in_any_directory(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "masked").mkdir()  # a directory is no recipe
    recipe = resolve_recipe(given, ["data.store=stores/mine", "training.budget_steps=7"])
    assert (recipe.name, recipe.data.store, recipe.training.budget_steps) == ("masked", "stores/mine", 7)
    assert load_plan("three_objectives").name == load_plan("recipes/studies/three_objectives.toml").name


def test_a_file_comes_before_a_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = (ROOT / "recipes/causal.toml").read_text(encoding="utf-8")
    (tmp_path / "masked").write_text(own, encoding="utf-8")
    assert recipe_file("masked") == Path("masked")
    assert resolve_recipe("masked").objective.name == "causal"


@pytest.mark.parametrize(("given", "part"), [("maskd", "Did you mean 'masked'"), (".", "is a directory")])
def test_what_is_neither_a_file_nor_a_name_is_said(given, part):
    with pytest.raises(UserError) as fault:
        resolve_recipe(given)
    assert part in str(fault.value)
    assert "pretextlm recipes" in str(fault.value)
