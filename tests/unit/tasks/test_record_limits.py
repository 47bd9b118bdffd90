"""A limit on records reads a sample of the file, whose order may be that of the labels."""

from __future__ import annotations

import json

import pytest

from pretextlm.training.corpus import read_split
from pretextlm.training.recipe import Recipe


@pytest.mark.parametrize(("group", "expected"), [([], None), (["number"], list(range(20)))])
def test_a_limit_takes_a_sample_in_order_but_leaves_groups_together(tmp_path, group, expected):
    file = tmp_path / "sorted.jsonl"
    rows = [{"text": f"text {n}", "label": n // 50, "number": n // 2} for n in range(100)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Recipe.load(
        {
            "data": {
                "train": str(file),
                "validation": str(file),
                "tokenizer": str(tmp_path),
                "train_records": 40,
                "validation_records": 20,
            },
            "task": {"name": "text_classification", "group": group},
            "model": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"budget_steps": 1},
        }
    )
    found = read_split(recipe, "validation")
    places = (found.rows - 1).tolist()
    assert len(places) == 20
    assert places == sorted(set(places))
    if expected is not None:
        assert places == expected
        return
    assert 4 < sum(place >= 50 for place in places) < 16
    again = recipe.model_copy(update={"seed": 9})
    assert read_split(again, "validation").rows.tolist() == found.rows.tolist()
    assert len(read_split(recipe, "train")) == 40
    assert len(read_split(recipe, "validation", str(file))) == 100
