"""What an export writes: what came, as it came; what was trained, for any reader."""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.builders import make_store
from tests.foreign import BERT, bert_directory

from pretextlm.config import apply_overrides
from pretextlm.errors import UserError
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.provenance import origin_of
from pretextlm.hf.state_dict import PRESETS
from pretextlm.model.presets.preset import find
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

PREFIX = 'objective={name="prefix"}'
BERT_SHAPE = 'model.preset="bert-base-uncased"'
OBJECTIVES = {"encoder": "masked", "decoder": "causal", "encoder_decoder": "span_corruption"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return bert_directory(tmp_path_factory.mktemp("foreign") / "model")


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    return import_model(str(place), tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=40, validation=10)


def trained(store, directory, architecture, *overrides):
    values = {
        "data": {"store": str(store.path), "length": 64},
        "objective": {"name": OBJECTIVES[architecture]},
        "model": {"architecture": architecture, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        "training": {"budget_steps": 1, "batch_tokens": 128, "dtype": "fp32", "compile": "off", "validations": 0},
    }
    return pretrain(Recipe.load(apply_overrides(values, overrides)), directory)


def test_an_import_comes_back_byte_for_byte(place, run, tmp_path):
    done = export_model(run.directory, tmp_path / "out")
    theirs, ours = load_file(place / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert done.untouched
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (place / "tokenizer.json").read_bytes()
    values = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {name: values[name] for name in BERT} == BERT


def test_a_large_model_is_cut_into_shards_that_import_alike(run, tmp_path):
    done = export_model(run.directory, tmp_path / "out", max_shard_bytes=16_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    assert len(files) > 2
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for file in files for tensor in load_file(tmp_path / "out" / file).values()
    )
    assert all(done.files[file] < 20_000 for file in files)
    again = import_model(str(tmp_path / "out"), tmp_path / "again")
    expected = run.load_model().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.load_model().state_dict().items())


def test_weights_are_rounded_where_asked(run, tmp_path):
    export_model(run.directory, tmp_path / "out", dtype="bf16")
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_of_no_family_is_refused_with_a_preset_that_makes_it_one(store, tmp_path):
    trained(store, tmp_path / "run", "decoder", "model.attention={global_tokens=1}")
    with pytest.raises(UserError, match="No published family") as caught:
        export_model(tmp_path / "run", tmp_path / "out")
    assert PRESETS["decoder"] in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("architecture", list(PRESETS))
def test_the_preset_in_the_hint_makes_a_model_that_can_be_written(store, tmp_path, architecture):
    run = trained(store, tmp_path / "run", architecture, f"model.preset='{PRESETS[architecture]}'")
    done = export_model(run.directory, tmp_path / "out")
    assert done.family == find(PRESETS[architecture]).family
    again = import_model(str(tmp_path / "out"), tmp_path / "again")
    origin = origin_of(again.directory)
    assert origin.added_tokens == ()
    assert origin.drawn == ()
    expected = run.load_model().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.load_model().state_dict().items())


def test_the_card_says_what_the_run_was_made_of(store, tmp_path):
    run = trained(store, tmp_path / "run", "encoder", BERT_SHAPE)
    evaluation = {
        "metrics": {"masked_accuracy": {"value": 0.5, "stderr": 0.01, "n": 9, "unit": "", "better": "higher"}},
        "settings": {"documents": 12, "documents_total": 40, "tokens": 3210, "tokens_total": 9876},
    }
    (run.directory / "evaluation.json").write_text(json.dumps(evaluation))
    export_model(run.directory, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for expected in ("pipeline_tag: fill-mask", "| grammar | CC0-1.0 |", "1 steps", "| masked_accuracy | 0.5000 |"):
        assert expected in card
    assert "12 of 40 documents, 3,210 of 9,876 tokens were read" in card
    assert ".." not in card
    assert "Begun from weights drawn from seed 0. Rows of 64 tokens, 128 tokens a step" in card
    assert "from transformers import AutoTokenizer, BertForMaskedLM" in card
    weights = sum(tensor.numel() for tensor in load_file(tmp_path / "out" / "model.safetensors").values())
    assert f"{weights:,} parameters." in card


def test_the_card_of_a_prefix_model_says_what_transformers_does_not_do(store, tmp_path):
    run = trained(store, tmp_path / "run", "decoder", PREFIX)
    export_model(run.directory, tmp_path / "out", family="nanochat")
    assert "in both directions" in (tmp_path / "out" / "README.md").read_text()


def test_transformers_reads_what_was_trained_here(store, tmp_path):
    transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")
    run = trained(store, tmp_path / "run", "encoder", BERT_SHAPE)
    export_model(run.directory, tmp_path / "out")
    model, found = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = "The old captain opens a letter."
    vocabulary = run.vocabulary
    inner = run.tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer(text)["input_ids"] == [vocabulary.cls, *inner, vocabulary.sep]
    assert tokenizer.mask_token_id == vocabulary.mask
    assert model.config.vocab_size == run.recipe.model.vocab_size


def test_a_directory_in_use_is_not_overwritten(run, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="not empty"):
        export_model(run.directory, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_family_of_another_architecture_is_refused(run, tmp_path):
    with pytest.raises(UserError):
        export_model(run.directory, tmp_path / "out", family="llama")
    assert list(tmp_path.iterdir()) == []
