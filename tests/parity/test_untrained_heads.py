"""A head that a published checkpoint lacks answers nothing until it is trained, and does not leave as a trained one."""

from __future__ import annotations

import json

import pytest
from tests.foreign import bert_directory, word_pieces
from tests.parity.families import randomised
from tests.parity.fine_tuned import CONFIGS, LLAMA, SHAPE

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.run import Opened
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.generate import generate
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.untrained import LM_HEAD, untrained_heads
from pretextlm.training.initial_weights import with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

transformers = pytest.importorskip("transformers", reason="it writes the models (extra hub)")


def taken(place, name, config, shape):
    """An import of a random model of a class of transformers."""
    model = randomised(getattr(transformers, name)(getattr(transformers, config)(**shape)))
    model.save_pretrained(place / "theirs")
    word_pieces().save(str(place / "theirs" / "tokenizer.json"))
    return import_model(place / "theirs", place / "start")


def test_a_bare_encoder_answers_nothing_until_its_head_is_trained(tmp_path):
    bare = taken(tmp_path, "BertModel", "BertConfig", SHAPE)
    assert untrained_heads(bare) == {LM_HEAD}
    for ask in (lambda: fill(bare, "the old ____"), lambda: Opened(bare.directory)):
        with pytest.raises(UserError, match=r"language-model head of .* nothing has trained it"):
            ask()
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"the old ship sails a river {i}."}) + "\n" for i in range(60)))
    store = prepare([text], tmp_path / "store", tokenizer=str(bare.directory / "tokenizer.json"))
    with pytest.raises(UserError, match="language-model head"):
        evaluate(bare.directory, store=store.path)
    values = {
        "start": str(bare.directory),
        "data": {"store": str(store.path), "length": 32},
        "objective": {"name": "masked"},
        "training": {"budget_steps": 1, "batch_tokens": 128, "dtype": "fp32", "compile": "off"},
    }
    trained = pretrain(Recipe.load(with_start(values)), tmp_path / "trained")
    assert untrained_heads(trained) == set()
    assert fill(trained, "the old ____").text
    assert export_model(trained.directory, tmp_path / "out").architecture == "BertForMaskedLM"


@pytest.mark.parametrize(
    ("name", "config", "shape", "exported"),
    [
        ("BertModel", "BertConfig", SHAPE, "BertModel"),
        ("LlamaModel", "LlamaConfig", {**LLAMA, "tie_word_embeddings": False}, "LlamaModel"),
    ],
)
def test_a_changed_bare_model_leaves_as_a_bare_model(name, config, shape, exported, tmp_path):
    bare = taken(tmp_path, name, config, shape)
    prune_run(bare.directory, tmp_path / "small", Pruning(channels=0.25))
    done = export_model(tmp_path / "small", tmp_path / "out")
    assert (done.architecture, done.checked[:8]) == (exported, "checked:")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trained here alone" not in card
    assert "no place for: language model" not in card
    if exported == "LlamaModel":
        with pytest.raises(UserError, match="language-model head"):
            generate(bare, "the ship")


def test_a_discriminator_without_its_generator_fills_nothing_but_judges(tmp_path):
    run = taken(tmp_path, "ElectraForPreTraining", *CONFIGS["electra"])
    assert "generator" in untrained_heads(run)
    with pytest.raises(UserError, match="The generator of"):
        fill(run, "the old ____")
    assert Opened(run.directory).scorer("auto", 4)


def test_complete_models_have_no_untrained_head(tmp_path):
    assert untrained_heads(import_model(bert_directory(tmp_path / "theirs"), tmp_path / "run")) == set()
    assert untrained_heads(taken(tmp_path / "two", "GPT2LMHeadModel", *CONFIGS["gpt2"])) == set()
