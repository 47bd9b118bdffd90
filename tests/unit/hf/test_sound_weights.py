"""Weights that are not finite, and tensors that are no copies of those that they are tied to, are refused by name."""

import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.builders import make_run, make_store
from tests.foreign import bert_directory

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.model.families.registry import FAMILIES
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run


def spoil(place, value):
    tensors = load_file(place / "model.safetensors")
    name = sorted(tensors)[3]
    tensors[name].view(-1)[1] = value
    save_file(tensors, place / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_import_counts_and_names_weights_that_are_not_finite(tmp_path, value):
    place = bert_directory(tmp_path / "model")
    spoil(place, value)
    with pytest.raises(UserError, match="has 1 weights that are NaN or infinite, in "):
        import_model(place, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = import_model(place, tmp_path / "run", allow_non_finite=True)
    with pytest.raises(UserError, match="NaN or infinite"):
        export_model(run, tmp_path / "out")
    export_model(run, tmp_path / "out", check=False, allow_non_finite=True)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A run with one infinite weight."""
    place = tmp_path_factory.mktemp("broken")
    run = Run.open(make_run(make_store(place / "store"), place / "run"))
    found = run.checkpoint
    weights = found.model()
    weights[next(iter(weights))].view(-1)[0] = float("inf")
    state = dict(found.state)
    del found
    shutil.rmtree(run.checkpoints)
    checkpoints.save(run.checkpoints, 2, weights, {}, state, 1)
    return run.directory


def start(run, out):
    recipe = Run.open(run).recipe.dump()
    pretrain(Recipe.load({**recipe, "start": str(run)}), out)


@pytest.mark.parametrize(
    "command",
    [
        lambda run, out: evaluate(run),
        lambda run, out: export_model(run, out),
        lambda run, out: export_model(run, out, quantize=True),
        lambda run, out: prune_run(run, out, Pruning(sparsity=0.5)),
        start,
    ],
    ids=["evaluate", "export", "int8", "prune", "start"],
)
def test_no_command_goes_on_with_weights_that_are_not_finite(broken, tmp_path, command):
    with pytest.raises(UserError, match="has 1 weights that are NaN or infinite, in"):
        command(broken, tmp_path / "out")


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].copies])
def test_no_family_ignores_a_tensor_that_it_could_compare(name):
    family = FAMILIES[name]
    assert not any(re.search(pattern, copy) for pattern in family.ignored for copy in family.copies)
    assert set(family.copies.values()) <= {"embed_tokens.weight", "head_layers.bias"}


def test_a_head_of_its_own_beside_tied_embeddings_is_refused(tmp_path):
    place = bert_directory(tmp_path / "model")
    tensors = load_file(place / "model.safetensors")
    embedding = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.weight"] = embedding.clone()
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    import_model(place, tmp_path / "same")
    tensors["cls.predictions.decoder.weight"] = embedding + 0.1
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"The tensor cls\.predictions\.decoder\.weight differs"):
        import_model(place, tmp_path / "other")


def test_a_tensor_that_is_stored_under_its_copys_name_alone_is_carried(tmp_path):
    place = bert_directory(tmp_path / "model")
    tensors = load_file(place / "model.safetensors")
    whole = Run.open(import_model(place, tmp_path / "whole").directory).load_model().state_dict()
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    save_file(tensors, place / "model.safetensors", {"format": "pt"})
    run = import_model(place, tmp_path / "run")
    assert all(torch.equal(one, whole[name]) for name, one in run.load_model().state_dict().items())
