"""`prune` and `export --quantize` as a user runs them."""

from __future__ import annotations

import json

import pytest
import typer
from tests.builders import make_store
from typer.testing import CliRunner

from pretextlm.cli import export, prune
from pretextlm.errors import UserError
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    store = make_store(place / "store", train=40, validation=8)
    recipe = {
        "data": {"store": str(store.path), "length": 32},
        "objective": {"name": "causal"},
        "model": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "norm": {"weight": True},
            "attention": {"qk_norm": False},
            "feed_forward": {"activation": "silu", "gated": True},
            "embedding": {"norm": False},
        },
        "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 0},
    }
    pretrain(Recipe.load(recipe), place / "run")
    return place / "run"


def called(command, *arguments):
    app = typer.Typer()
    app.command()(command)
    done = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_prune_prints_parameters_and_the_loss_before_and_after(run, tmp_path):
    said = called(prune.prune, run, "--heads", 0.25, "--channels", 0.5, "--out", tmp_path / "small")
    assert "parameters: " in said
    assert " nats per target; change " in said
    assert "0.25 of the attention heads, chosen by gradient" in said


def test_json_is_one_object_with_all_of_it(run, tmp_path):
    done = json.loads(called(prune.prune, run, "--layers", "1", "--out", tmp_path / "small", "--json"))
    assert done["parameters"]["after"] < done["parameters"]["before"]
    assert set(done["loss"]) == {"before", "after", "change"}
    assert done["not_measured"] is None


def test_a_quantised_export_prints_sizes_and_the_loss_before_and_after(run, tmp_path):
    said = called(export.export, run, tmp_path / "out", "--quantize", "int8")
    assert "int8: the matrices of the blocks" in said
    assert " nats per target; change " in said
    done = json.loads(called(export.export, run, tmp_path / "other", "--quantize", "int8", "--json"))
    assert done["weight_bytes"]["after"] < done["weight_bytes"]["before"]
    assert set(done["loss"]) == {"before", "after", "change"}


def test_what_is_no_list_of_layers_and_a_store_for_nothing_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="not a list of layers"):
        called(prune.prune, run, "--layers", "first", "--out", tmp_path / "small")
    with pytest.raises(UserError, match="--store"):
        called(export.export, run, tmp_path / "out", "--store", tmp_path)
