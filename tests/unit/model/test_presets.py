"""Every preset is the model of a recipe, with the shape that it was published with."""

from pathlib import Path

import pytest

from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.presets.preset import filled_in, find, presets

SHAPE = ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")


@pytest.mark.parametrize("name", presets())
def test_a_preset_fills_in_a_recipe(name):
    filled, published = filled_in({"preset": name}), find(name).config().model_dump()
    assert {key: filled[key] for key in SHAPE} == {key: published[key] for key in SHAPE}
    assert filled["vocab_size"] == 0, "the store determines it"


def test_values_follow_those_that_they_were_derived_from():
    wider = filled_in({"preset": "bert-base-uncased", "hidden_size": 1536})
    assert (wider["intermediate_size"], wider["head_dim"]) == (6144, 128)


def test_a_head_dim_of_its_own_stays():
    assert filled_in({"preset": "t5-v1_1-small", "hidden_size": 768})["head_dim"] == 64


@pytest.mark.parametrize("document", ["docs/models.md", "README.md"])
def test_documents_name_each_preset_with_the_class_that_it_leaves_as(document):
    found = {}
    for line in (Path(__file__).parents[3] / document).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for before, cell, after in zip(["", *cells], cells, [*cells[1:], ""], strict=False):
            if cell.startswith("`") and cell.endswith(("LM`", "LMHeadModel`", "Generation`")):
                names = [name for side in (before, after) for name in side.split(", ") if name in presets()]
                found |= dict.fromkeys(names, cell.strip("`"))
    assert found == {name: next(iter(FAMILIES[presets()[name].family].classes)) for name in found}
    assert len(found) == len(presets()) if document.startswith("docs") else found
