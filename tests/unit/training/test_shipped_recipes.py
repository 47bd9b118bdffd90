"""The recipes that come with the package load, and those for GPUs fit one."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.hf.export_format import export_format
from pretextlm.model.transformer import meta_model
from pretextlm.training.memory_estimate import estimate_memory
from pretextlm.training.recipe import Recipe

STUDIES = ("mnli_three_ways",)
RECIPES = sorted(p for p in (Path(__file__).parents[3] / "recipes").glob("*.toml") if p.stem not in STUDIES)
SMALLEST_GPU = 80e9
"""Bytes of the GPUs that the recipes for GPUs are made for."""


def vocabulary(size: int) -> Vocabulary:
    return Vocabulary(size, 0, 1, 2, 3, 4, 5, 6, tuple(range(7, 107)), frozenset(range(107)))


def test_there_are_recipes_for_every_architecture_and_budget():
    names = {path.stem for path in RECIPES}
    architectures = ("encoder", "decoder", "encoder_decoder")
    assert {
        f"{budget}_{name}" for budget in ("cpu_10min", "gpu_30min", "gpu_1day", "8gpu") for name in architectures
    } <= names
    assert {"masked", "causal", "span_corruption", "shakespeare_char"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_under_its_own_name_and_says_how_to_run_it(path):
    recipe = Recipe.load(path)
    assert recipe.name == path.stem
    assert not Path(recipe.data.store).is_absolute()
    head = path.read_text().partition("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in head)
    assert any(f"pretrain recipes/{path.name}" in line for line in head)
    assert any(f"--out {recipe.data.store}" in line for line in head)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_says_how_its_run_will_be_exported(path):
    found = export_format(Recipe.load(path).with_vocabulary(vocabulary(4096)))
    assert found.family
    assert f"# {found}" in path.read_text().splitlines()


@pytest.mark.parametrize("path", [path for path in RECIPES if "gpu" in path.stem], ids=lambda path: path.stem)
def test_the_recipes_for_gpus_fit_their_memory_and_have_the_architecture_of_their_name(path):
    recipe = Recipe.load(path).with_vocabulary(vocabulary(32_768))
    assert path.stem.endswith(f"_{recipe.model.architecture}")
    rows, length = recipe.training.micro_batch_tokens // recipe.data.length, recipe.data.length
    second = length // 4 if recipe.model.architecture == "encoder_decoder" else None
    memory = estimate_memory(meta_model(recipe.model), recipe.training.optimizer, rows, length, "bf16", second)
    assert memory.total < 0.9 * SMALLEST_GPU
