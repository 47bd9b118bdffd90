"""What tests over all objectives need: text of every kind, and the options without which some cannot be trained."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.builders import make_store

from pretextlm.data.store import Store
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe


@pytest.fixture(autouse=True)
def one_thread():
    """Sums come in the same order, and tests that run side by side do not disturb each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def some_of_all(tmp_path_factory) -> Store:
    """A few documents of several sentences, and pairs."""
    return make_store(tmp_path_factory.mktemp("some") / "store", train=24, validation=6, pairs=24)


@pytest.fixture(scope="session")
def options_of(some_of_all, tmp_path_factory) -> Callable[[str], dict[str, Any]]:
    """Options by the name of an objective; where a teacher is needed, of a single step of training."""

    def options(name: str) -> dict[str, Any]:
        if name == "text_to_text":
            return {"unsupervised": 0.5}
        return {"teacher": teacher(), "inner": {"name": "masked"}} if name == "distillation" else {}

    def teacher() -> str:
        place = tmp_path_factory.getbasetemp() / "teacher"
        values = {
            "data": {"store": str(some_of_all.path), "length": 40},
            "objective": {"name": "masked"},
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"budget_steps": 1, "batch_tokens": 256, "dtype": "fp32", "validations": 0},
        }
        pretrain(Recipe.load(values), place, resume=True)
        return str(place)

    return options
