"""Every preset is the model of a recipe, with the shape that it was published with."""

import pytest

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
