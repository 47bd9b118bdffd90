"""A pruned run is a run: told where it comes from, measured, evaluated, trained on and exported."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.builders import make_store
from tests.foreign import bert_directory

from pretextlm.compression.losses import LossComparison
from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.compression.quantized import export_quantized
from pretextlm.config import apply_overrides
from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.hf import int8
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.model.block_matrices import is_block_matrix
from pretextlm.training.initial_weights import with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_manifest import provenance_of

pytestmark = pytest.mark.slow

LLAMA = [
    "model.norm={weight=true}",
    "model.attention={qk_norm=false}",
    "model.feed_forward={activation='silu',gated=true}",
    "model.embedding={norm=false}",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=60, validation=10)


def recipe(store, objective, *overrides):
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": objective},
        "model": {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48},
        "training": {"budget_steps": 8, "batch_tokens": 512, "dtype": "fp32", "compile": "off", "validations": 0},
        "evaluation": {"documents": 4, "blanks": 4, "prompts": 1},
    }
    return apply_overrides(values, overrides)


@pytest.fixture(scope="module")
def decoder(store, tmp_path_factory):
    return pretrain(Recipe.load(recipe(store, "causal", *LLAMA)), tmp_path_factory.mktemp("runs") / "decoder")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    place = bert_directory(tmp_path_factory.mktemp("foreign") / "model")
    return import_model(str(place), tmp_path_factory.mktemp("runs") / "imported")


def test_a_run_pruned_in_every_way_is_measured_told_evaluated_trained_on_and_exported(decoder, store, tmp_path):
    pruning = Pruning(sparsity=0.5, heads=0.25, channels=0.25, layers=(0, 2))
    done = prune_run(decoder.directory, tmp_path / "small", pruning, command=["pretextlm", "prune"])
    small = Run.open(tmp_path / "small")
    shape = small.recipe.model
    assert (shape.num_hidden_layers, shape.num_attention_heads, shape.head_dim, shape.intermediate_size) == (
        2,
        3,
        8,
        36,
    )
    assert small.recipe.start == str(decoder.directory)
    weights = small.load_model().state_dict()
    for name, weight in weights.items():
        if is_block_matrix(name):
            assert int((weight == 0).sum()) == weight.numel() // 2
    told = provenance_of(tmp_path / "small")["pruned"]
    assert told == [{key: value for key, value in done.items() if key != "run"}]
    cost = json.loads((tmp_path / "small" / "cost.json").read_text())
    assert cost["parameters"] == done["parameters"]["after"] == sum(t.numel() for t in weights.values())
    assert cost["tokens"] == json.loads((decoder.directory / "cost.json").read_text())["tokens"]

    before, after = (evaluate(run.directory)["metrics"]["loss"] for run in (decoder, small))
    assert done["loss"]["before"] == before
    assert done["loss"]["after"] == after
    assert done["loss"]["change"]["value"] == pytest.approx(after["value"] - before["value"], abs=1e-5)

    again = Recipe.load(with_start({**recipe(store, "causal"), "start": str(small.directory), "model": {}}))
    trained = pretrain(again, tmp_path / "again")
    assert evaluate(trained.directory)["metrics"]["loss"]["value"] < after["value"]
    assert provenance_of(tmp_path / "again")["pruned"] == told

    export_model(small.directory, tmp_path / "out")
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (values["num_attention_heads"], values["head_dim"], values["intermediate_size"]) == (3, 8, 36)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{done['parameters']['before']:,} parameters before, {done['parameters']['after']:,} after" in card
    assert f"change {done['loss']['change']['value']:.4f}" in card


@pytest.mark.parametrize("objective", ["span_corruption", "next_sentence", "mixed_visibility"])
def test_runs_of_other_objectives_are_pruned_too(store, tmp_path, objective):
    run = pretrain(Recipe.load(recipe(store, objective)), tmp_path / "run")
    done = prune_run(run.directory, tmp_path / "small", Pruning(heads=0.5, channels=0.5))
    assert done["loss"]["after"]["value"] > 0
    assert done["parameters"]["after"] < done["parameters"]["before"]


def test_modules_whose_shape_follows_the_models_are_left_alone_or_the_cut_is_refused(store, tmp_path):
    run = pretrain(Recipe.load(recipe(store, "replaced_token", "objective.generator_size=0.5")), tmp_path / "run")
    with pytest.raises(UserError, match="has a module whose shape follows"):
        prune_run(run.directory, tmp_path / "small", Pruning(heads=0.5))
    assert not (tmp_path / "small").exists()
    prune_run(run.directory, tmp_path / "small", Pruning(pattern="2:4"))
    before, after = run.load_model().state_dict(), Run.open(tmp_path / "small").load_model().state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items() if not is_block_matrix(name))


def test_a_run_pruned_twice_tells_both(decoder, tmp_path):
    prune_run(decoder.directory, tmp_path / "one", Pruning(channels=0.5, importance="weights"))
    prune_run(tmp_path / "one", tmp_path / "two", Pruning(sparsity=0.25))
    told = provenance_of(tmp_path / "two")["pruned"]
    assert [one["what"] for one in told] == [
        "0.5 of the feed-forward channels, chosen by weights",
        "the smallest 0.25 of each matrix's weights",
    ]


def test_an_import_is_pruned_by_weights_and_says_why_there_is_no_loss(imported, tmp_path):
    done = prune_run(imported.directory, tmp_path / "small", Pruning(channels=0.25))
    assert done["loss"] is None
    assert "--store" in done["not_measured"]
    assert "chosen by weights" in done["what"]
    out = export_model(tmp_path / "small", tmp_path / "out")
    assert out.family == "bert"
    assert not out.untouched
    assert json.loads((tmp_path / "out" / "config.json").read_text())["intermediate_size"] == 36
    with pytest.raises(UserError, match="No text to take gradients on"):
        prune_run(imported.directory, tmp_path / "other", Pruning(channels=0.25, importance="gradient"))


def test_a_bert_with_fewer_heads_is_no_bert_to_others_and_leaves_with_its_own_code(imported, tmp_path):
    prune_run(imported.directory, tmp_path / "small", Pruning(heads=0.25))
    with pytest.raises(UserError, match="'bert' cannot have this shape"):
        export_model(tmp_path / "small", tmp_path / "out", family="bert")
    assert export_model(tmp_path / "small", tmp_path / "out").family == "pretextlm"


@pytest.mark.parametrize(
    ("pruning", "reason"),
    [
        (Pruning(), "Nothing says"),
        (Pruning(sparsity=0.5, pattern="2:4"), "exclude each other"),
        (Pruning(sparsity=1.0), "not between 0 and 1"),
        (Pruning(heads=0.95), "all 4 heads"),
        (Pruning(channels=0.001), "less than one"),
        (Pruning(pattern="3:2"), "not a pattern"),
        (Pruning(layers=(9,)), "layers of this model are 0 to 2"),
    ],
)
def test_what_cannot_be_taken_is_refused_and_nothing_is_written(decoder, tmp_path, pruning, reason):
    with pytest.raises(UserError, match=reason):
        prune_run(decoder.directory, tmp_path / "small", pruning)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_empty_is_refused(decoder, tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        prune_run(decoder.directory, tmp_path, Pruning(sparsity=0.5))


def test_a_quantised_export_is_measured_as_it_is_read_back(decoder, store, tmp_path):
    done = export_quantized(decoder.directory, tmp_path / "out", dtype="bf16")
    loss = done.comparison["loss"]
    run = import_model(str(tmp_path / "out"), tmp_path / "again")
    assert loss["before"] == evaluate(decoder.directory)["metrics"]["loss"]
    whole = run.load_model().state_dict()
    q, scale = int8.quantize(decoder.load_model().state_dict()["decoder.0.mlp.up_proj.weight"], torch.bfloat16)
    assert torch.equal(whole["decoder.0.mlp.up_proj.weight"], int8.dequantize(q, scale).float())
    ruler = LossComparison.of(decoder, decoder.load_model())
    assert ruler.compare(run.recipe.model, whole).plain() == loss
    assert done.weight_bytes < done.whole_bytes
    assert f"after {loss['after']['value']:.4f}" in (tmp_path / "out" / "README.md").read_text()


def test_a_quantised_import_has_no_loss_without_a_store_and_a_wrong_one_is_refused(imported, store, tmp_path):
    done = export_quantized(imported.directory, tmp_path / "out")
    assert done.comparison["loss"] is None
    assert "--store" in done.comparison["not_measured"]
    assert "was not measured" in (tmp_path / "out" / "README.md").read_text()
    assert any(not t.is_floating_point() for t in load_file(tmp_path / "out" / "model.safetensors").values())
    with pytest.raises(UserError, match="another tokenizer"):
        export_quantized(imported.directory, tmp_path / "other", store=store.path)
    assert not (tmp_path / "other").exists()
