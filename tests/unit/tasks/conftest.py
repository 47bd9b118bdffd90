"""A small run to fine-tune, and files of records."""

from __future__ import annotations

import json

import pytest
from tests.builders import make_store

from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """Directory of an encoder's run of two steps."""
    place = tmp_path_factory.mktemp("start")
    store = make_store(place / "store")
    values = {
        "data": {"store": str(store.path), "length": 32},
        "objective": "masked",
        "model": SHAPE,
        "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "validations": 0},
    }
    return pretrain(Recipe.load(values), place / "run").directory


@pytest.fixture
def written(tmp_path):
    """Writes records as JSON lines; returns the path."""

    def write(records, name="records.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
        return str(path)

    return write


@pytest.fixture
def recipe(start):
    """A recipe of a task on these files, from the run."""

    def make(task, train, validation=None, tuning=None, **training):
        from pretextlm.training.initial_weights import with_start

        values = {
            "start": str(start),
            "data": {"train": train, "validation": validation or train, "length": 48},
            "task": task,
            "tuning": tuning or {},
            "training": {"budget_steps": 3, "batch_rows": 8, "dtype": "fp32", "compile": "off", **training},
        }
        return Recipe.load(with_start(values))

    return make
