"""A name never leads out of the directory that it is written in."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretextlm.cli.pretrain import load_recipe
from pretextlm.errors import UserError
from pretextlm.names import MOST_BYTES, directory_name, one_directory, shortened
from pretextlm.training.recipe import Recipe

VALUES = {"data": {"store": "s"}, "objective": {"name": "causal"}, "training": {"budget_steps": 1}}


@pytest.mark.parametrize("name", ["run", "BERT base, 3rd", "한국어-모형", "..x", ".hidden", "a.b", "n" * MOST_BYTES])
def test_a_directory_may_have_these_names(name):
    assert one_directory(name) == name
    assert Recipe.load({**VALUES, "name": name}).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../../evil",
        "/tmp/evil",
        "a/b",
        "a\\b",
        "a\0",
        "\x1b[2J",
        "a\u202eb",
        "a\n",
        "한" * 100,
        "\udcff",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(UserError, match="'name' in the recipe: a name "):
        Recipe.load({**VALUES, "name": name})


def test_the_default_directory_of_a_run_is_below_runs(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('name = "mine"\n[data]\nstore = "s"\n[objective]\nname = "causal"\n[training]\nbudget_steps = 1\n')
    assert load_recipe(file, [], None)[1] == Path("runs/mine")
    for name in ("../../evil", "", "/tmp/evil"):
        with pytest.raises(UserError, match="name"):
            load_recipe(file, [f'name="{name}"'], None)


@pytest.mark.parametrize("title", ["../../evil", "", "///", "..", "\0\x1b", "a b/../c", "한국어 연구", "a" * 5000])
def test_a_directory_is_made_of_any_title(title):
    name = directory_name(title, "study")
    assert one_directory(name) == name
    assert (Path("studies") / name).parent == Path("studies")


def test_long_names_are_cut_and_stay_apart():
    one, other = (shortened("한" * 100 + letter) for letter in "ab")
    assert one != other
    assert max(len(one.encode()), len(other.encode())) <= MOST_BYTES
    assert shortened("a" * MOST_BYTES) == "a" * MOST_BYTES


@pytest.mark.parametrize("path", ["a\0b", "\udcff", "n" * 5000])
def test_a_path_that_no_file_can_have_is_refused(path):
    with pytest.raises(UserError, match=r"'data.store' in the recipe: a path "):
        Recipe.load({**VALUES, "data": {"store": path}})
