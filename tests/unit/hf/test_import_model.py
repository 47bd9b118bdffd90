"""What an import carries over, adds and leaves alone."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.foreign import BERT, SPECIAL, WORDS, bert_directory

from pretextlm.batch import Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.fill import fill_blanks
from pretextlm.evaluation.trained_model import open_scorer
from pretextlm.hf.import_model import grown, import_model
from pretextlm.hf.provenance import kept, origin_of
from pretextlm.model.model_inputs import prepare
from pretextlm.report.read import read_run
from pretextlm.training.run_directory import Run

OWN = BERT["vocab_size"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return bert_directory(tmp_path_factory.mktemp("foreign") / "model")


@pytest.fixture(scope="module")
def run(place, tmp_path_factory):
    return import_model(str(place), tmp_path_factory.mktemp("runs") / "run")


def test_the_result_is_a_run_like_any_other(run):
    again = Run.open(run.directory)
    assert again.recipe == run.recipe
    assert again.recipe.training_objective.name == "masked"
    assert again.recipe.data.length == BERT["max_position_embeddings"]
    assert read_run(run.directory).state == "not evaluated"
    assert len(fill_blanks(open_scorer(again), "the old [MASK] .", 3, 1).blanks[0].answers) == 3


def test_every_row_of_the_checkpoint_is_carried_over_as_it_was(place, run):
    theirs = load_file(place / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    ours = run.load_model().embed_tokens.weight
    assert torch.equal(ours[:OWN], theirs)
    assert len(ours) == run.vocabulary.size


def test_tokens_keep_their_ids_and_added_ones_come_after(run):
    origin = origin_of(run.directory)
    assert [run.tokenizer.token_to_id(token) for token in SPECIAL] == list(range(len(SPECIAL)))
    first = run.tokenizer.get_vocab_size() - len(origin.added_tokens)
    assert [run.tokenizer.token_to_id(token) for token in origin.added_tokens] == list(
        range(first, run.tokenizer.get_vocab_size())
    )
    assert "<s>" in origin.added_tokens
    assert not set(origin.added_tokens) & {*SPECIAL, *WORDS}


def test_added_tokens_take_no_more_than_their_share_of_the_probability(run):
    model = run.load_model()
    ids = np.arange(5, 45, dtype=np.int32).reshape(2, 20)
    with torch.inference_mode():
        outputs = model(prepare(Batch(input_ids=ids), model.config, torch.device("cpu"), torch.float32))
        probabilities = model.logits(outputs.hidden_BTD).softmax(-1)
    share = 1 - OWN / len(model.embed_tokens.weight)
    assert float(probabilities[..., OWN:].sum(-1).max()) <= share * 1.02
    assert int(probabilities.argmax(-1).max()) < OWN


def test_new_rows_are_the_mean_and_told_apart():
    old = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    new = grown({"e": old, "b": old[:, 0]}, {"e": torch.empty(60, 8), "b": torch.empty(60)}, seed=1)
    torch.testing.assert_close(new["e"][50:].mean(0), old.mean(0), atol=0.02, rtol=0)
    assert len(new["e"].unique(dim=0)) == 60
    assert torch.equal(new["b"][50:], old[:, 0].mean().expand(10))


def test_files_that_are_not_weights_are_kept_byte_for_byte(place, run):
    assert (run.directory / "origin" / "config.json").read_bytes() == (place / "config.json").read_bytes()
    assert kept(run.directory, "config.json")["hidden_dropout_prob"] == 0.25


def test_shards_give_the_same_run_as_one_file(place, run, tmp_path):
    tensors = load_file(place / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    other = tmp_path / "sharded"
    other.mkdir()
    for file in ("config.json", "tokenizer.json"):
        (other / file).write_bytes((place / file).read_bytes())
    for file, own in parts.items():
        save_file({name: tensors[name] for name in own}, other / file)
    index = {"weight_map": {name: file for file, own in parts.items() for name in own}}
    (other / "model.safetensors.index.json").write_text(json.dumps(index))
    ours = import_model(str(other), tmp_path / "run").load_model().state_dict()
    expected = run.load_model().state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_model_without_a_head_gets_one_and_says_so(place, tmp_path):
    tensors = load_file(place / "model.safetensors")
    bare = {name.removeprefix("bert."): tensor for name, tensor in tensors.items() if name.startswith("bert.")}
    other = bert_directory(tmp_path / "bare", architectures=["BertModel"])
    save_file({**bare, "pooler.dense.bias": torch.zeros(32)}, other / "model.safetensors")
    run = import_model(str(other), tmp_path / "run")
    origin = origin_of(run.directory)
    assert origin.bare
    assert all(name.startswith("head_layers.") for name in origin.drawn)
    assert origin.not_carried == ("bert.pooler.dense.bias",)


def test_a_list_of_word_pieces_will_do_for_a_tokenizer(place, run, tmp_path):
    other = bert_directory(tmp_path / "old")
    pieces = sorted(run.tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    (other / "tokenizer.json").unlink()
    (other / "vocab.txt").write_text("\n".join(token for token, index in pieces if index < OWN) + "\n")
    tokenizer = import_model(str(other), tmp_path / "run").tokenizer
    text = "The old ships [MASK] sailed?"
    assert tokenizer.encode(text).ids[1:-1] == run.tokenizer.encode(text, add_special_tokens=False).ids


def test_weights_in_half_precision_are_widened(place, tmp_path):
    other = bert_directory(tmp_path / "half")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(place / "model.safetensors").items()}
    save_file(tensors, other / "model.safetensors")
    run = import_model(str(other), tmp_path / "run")
    origin = origin_of(run.directory)
    weight = run.load_model().embed_tokens.weight
    assert origin.dtype == "bf16"
    assert weight.dtype == torch.float32
    assert torch.equal(weight[:OWN].bfloat16(), tensors["bert.embeddings.word_embeddings.weight"])


def test_a_directory_in_use_is_not_overwritten(place, tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="not empty"):
        import_model(str(place), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_hub_is_asked_for_safe_files_alone(place, tmp_path, monkeypatch):
    asked = {}

    def download(repo_id: str, allow_patterns: list[str], local_dir: str) -> None:
        asked.update(name=repo_id, patterns=allow_patterns)
        for path in place.iterdir():
            (Path(local_dir) / path.name).write_bytes(path.read_bytes())

    monkeypatch.setitem(sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=download))
    run = import_model("hf:someone/tiny-bert", tmp_path / "run")
    origin = origin_of(run.directory)
    assert asked["name"] == "someone/tiny-bert"
    assert not [pattern for pattern in asked["patterns"] if pattern.endswith((".bin", ".py", "*"))]
    assert origin.source == "hf:someone/tiny-bert"


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="huggingface-hub") as caught:
        import_model("hf:someone/tiny-bert", tmp_path / "run")
    assert "pretextlm[hub]" in caught.value.hint


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "a b", "https://host/x"])
def test_what_is_no_name_on_the_hub_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="not a name on the hub"):
        import_model(f"hf:{name}", tmp_path / "run")
