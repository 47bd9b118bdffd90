"""A run that begins from another's weights: their bits, exact resume, and heads of its own."""

import shutil
from dataclasses import replace

import pytest
import torch
from tests.builders import make_store

from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError
from pretextlm.evaluation.trained_model import open_store
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.training import trainer as module
from pretextlm.training.initial_weights import resolve_recipe, with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_manifest import RunManifest, provenance_of
from pretextlm.training.signals import Stopped


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=120, validation=20)


def values(store, objective="masked", **tables):
    training = {"budget_steps": 4, "batch_tokens": 256, "dtype": "fp32", "validations": 2, "compile": "off"}
    found = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": objective},
        "training": training | tables.pop("training", {}),
    }
    return found | tables


SHAPE = {"architecture": "encoder", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def first(store, tmp_path_factory):
    recipe = Recipe.load(values(store, model={**SHAPE, "type_vocab_size": 2}))
    return pretrain(recipe, tmp_path_factory.mktemp("runs") / "first")


def continued_from(store, first, objective="masked", **tables):
    return Recipe.load(with_start(values(store, objective, start=str(first.directory), **tables)))


def test_the_shape_is_that_of_the_run_it_starts_from(store, first):
    assert continued_from(store, first, model={"hidden_size": 64}).model == first.recipe.model


def test_the_first_step_begins_from_the_other_runs_bits(store, first, tmp_path):
    run = pretrain(continued_from(store, first, training={"learning_rate": 1e-12}), tmp_path / "run")
    ours, theirs = run.load_model().state_dict(), first.load_model().state_dict()
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def test_its_loss_goes_on_where_the_other_stopped(store, first, tmp_path):
    run = pretrain(continued_from(store, first), tmp_path / "run")
    at_start = next(line["loss"] for line in run.metrics() if line["kind"] == "validation" and line["step"] == 0)
    at_end = [line["loss"] for line in first.metrics() if line["kind"] == "validation"]
    fresh = pretrain(Recipe.load(values(store, model=run.recipe.model.model_dump())), tmp_path / "fresh")
    drawn = next(line["loss"] for line in fresh.metrics() if line["kind"] == "validation" and line["step"] == 0)
    assert at_start < at_end[0]
    assert at_start < drawn


def test_an_interrupted_run_goes_on_bit_for_bit_without_the_run_it_began_from(store, first, tmp_path, monkeypatch):
    begun = tmp_path / "begun"
    shutil.copytree(first.directory, begun)
    recipe = Recipe.load(with_start(values(store, start=str(begun))))
    whole = pretrain(recipe, tmp_path / "whole").load_model().state_dict()
    real = module.Trainer.step

    def stop_after_two(self, *args):
        done = real(self, *args)
        if self.state.step == 2:
            self.save()
            raise Stopped(2)
        return done

    monkeypatch.setattr(module.Trainer, "step", stop_after_two)
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "cut")
    monkeypatch.setattr(module.Trainer, "step", real)
    shutil.rmtree(begun)
    again = Recipe.load(with_start(Run.open(tmp_path / "cut").recipe.dump()))
    resumed = pretrain(again, tmp_path / "cut", resume=True).load_model().state_dict()
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_heads_that_are_new_are_drawn_and_those_of_the_other_left_behind(store, first, tmp_path):
    sentences = pretrain(continued_from(store, first, "next_sentence"), tmp_path / "pairs")
    names = set(sentences.load_model().state_dict())
    assert {name for name in names if name.startswith("heads.")}
    back = pretrain(continued_from(store, sentences), tmp_path / "back")
    assert not {name for name in back.load_model().state_dict() if name.startswith("heads.")}


def test_another_architecture_is_refused(store, first):
    with pytest.raises(UserError, match="does not train a model of architecture 'encoder'"):
        continued_from(store, first, "causal")


def test_a_recipe_built_in_python_takes_the_shape_too_unless_it_has_its_own(store, first):
    tables = values(store, start=first)
    recipe = Recipe(**tables)
    assert recipe.model.hidden_size != 32
    resolved = resolve_recipe(recipe)
    assert resolved.model == first.recipe.model
    assert resolved == resolve_recipe(tables | {"start": str(first.directory)})
    own = Recipe(**tables, model=recipe.model)
    assert resolve_recipe(own) == own


def test_another_shape_is_refused(store, first, tmp_path):
    recipe = Recipe.load(values(store, start=str(first.directory), model={**SHAPE, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match="num_hidden_layers = 3") as caught:
        pretrain(recipe, tmp_path / "run")
    assert "Leave the table [model] out" in caught.value.hint


def test_parts_that_the_other_model_does_not_tell_apart_are_refused(store, tmp_path):
    plain = pretrain(Recipe.load(values(store, model=SHAPE)), tmp_path / "plain")
    with pytest.raises(UserError, match="has 2 token types"):
        pretrain(continued_from(store, plain, "next_sentence"), tmp_path / "run")


def test_another_tokenizer_is_refused(store, first, tmp_path):
    other = make_store(tmp_path / "store", vocab_size=440, train=40, validation=10)
    with pytest.raises(UserError, match="another tokenizer"):
        pretrain(continued_from(other, first), tmp_path / "run")


@pytest.mark.slow
def test_ones_own_export_is_read_with_ones_own_store_wherever_tokenizers_are_compared(store, tmp_path):
    from transformers import AutoTokenizer

    shape = {"preset": "bert-base-uncased", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    run = pretrain(Recipe.load(values(store, model=shape)), tmp_path / "run")
    export_model(run.directory, tmp_path / "export")
    AutoTokenizer.from_pretrained(tmp_path / "export").save_pretrained(tmp_path / "export")
    own = import_model(str(tmp_path / "export"), tmp_path / "imported")
    files = [one / "tokenizer.json" for one in (store.path, own.directory)]
    assert files[0].read_bytes() != files[1].read_bytes()
    assert own.tokenizer.post_processor is not None
    assert open_store(own, store.path).path == store.path
    prepared = prepare(["package:this"], tmp_path / "this", tokenizer=own.directory, text_mode="lines")
    student = {"name": "distillation", "teacher": str(own.directory), "inner": {"name": "masked"}}
    recipe = Recipe.load(with_start(values(store, start=str(own.directory)) | {"objective": student}))
    recipe = recipe.model_copy(
        update={"data": recipe.data.model_copy(update={"forgetting_stores": (str(prepared.path),)})}
    )
    pretrain(recipe, tmp_path / "student")


def test_a_run_that_is_not_there_is_refused(store, tmp_path):
    recipe = Recipe.load(with_start(values(store, start=str(tmp_path / "none"))))
    with pytest.raises(UserError, match="is not a run directory"):
        pretrain(recipe, tmp_path / "run")


def test_rows_longer_than_the_table_of_positions_are_refused(store, tmp_path):
    model = {**SHAPE, "positions": {"kind": "learned", "max_position_embeddings": 48}}
    with pytest.raises(UserError, match="a table of 48 positions"):
        pretrain(Recipe.load(values(store, model=model)), tmp_path / "run")


def test_what_an_import_remembers_is_carried_on(store, first, tmp_path):
    imported = tmp_path / "imported"
    shutil.copytree(first.directory, imported)
    (imported / "origin").mkdir()
    (imported / "origin" / "config.json").write_text('{"hidden_dropout_prob": 0.25}')
    replace(RunManifest.read(imported), provenance={"imported": {"source": "somewhere"}}).write(imported)
    run = pretrain(Recipe.load(with_start(values(store, start=str(imported)))), tmp_path / "run")
    assert provenance_of(run.directory)["imported"] == {"source": "somewhere"}
    assert (run.directory / "origin" / "config.json").read_text() == '{"hidden_dropout_prob": 0.25}'
