"""Writing a store and opening it again."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pretextlm.data.encode import TextEncoder
from pretextlm.data.manifest import SPLIT_FILES
from pretextlm.data.store import Store
from pretextlm.data.tokenizer import train_tokenizer
from pretextlm.data.writer import Chunk, StoreWriter
from pretextlm.errors import UserError

TEXTS = ["One is here. Two is there.", "셋은 이렇다. 넷!", "Five\n\nSix"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", TEXTS, 400)


@pytest.fixture
def store(tmp_path, tokenizer):
    writer = StoreWriter(tmp_path / "work", tokenizer.get_vocab_size(), tokenizer.to_str())
    encoder = TextEncoder(tokenizer)
    for text in TEXTS:
        writer.splits["train"].append(encoder.encode([text]))
    writer.splits["validation"].append(encoder.encode(TEXTS[:1]))
    writer.commit(tmp_path / "store", [], {})
    return tmp_path / "store"


def test_what_is_written_is_what_is_read(store, tokenizer):
    opened = Store.open(store)
    whole = TextEncoder(tokenizer).encode(TEXTS)
    split = opened.train
    assert np.array_equal(split.tokens, whole.tokens)
    assert np.array_equal(split.sentences, whole.sentences)
    assert np.array_equal(split.word_starts(np.arange(split.num_tokens)), whole.word_starts)
    assert [tokenizer.decode(split.document(i).tolist()) for i in range(3)] == TEXTS
    assert split.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert opened.vocabulary.size == tokenizer.get_vocab_size()
    assert opened.manifest["splits"]["train"]["words"] == whole.word_starts.sum()
    opened.verify()


def test_the_arrays_cannot_be_written(store):
    with pytest.raises(ValueError, match="read-only"):
        Store.open(store).train.tokens[0] = 1


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path, tokenizer):
    writer = StoreWriter(tmp_path / "work", 70_000, tokenizer.to_str())
    chunk = Chunk(
        np.array([69_999], np.uint32),
        np.array([True]),
        np.array([1]),
        np.array([3], np.uint32),
        np.array([0], np.uint32),
        np.array([0]),
    )
    writer.splits["train"].append(chunk)
    writer.commit(tmp_path / "store", [], {})
    opened = Store.open(tmp_path / "store")
    assert opened.train.document(0).tolist() == [69_999]
    with pytest.raises(UserError, match="the store was made with 70,000"):
        _ = opened.tokenizer


def test_selecting_documents_of_a_chunk_is_encoding_only_those(tokenizer):
    encoder = TextEncoder(tokenizer)
    part = encoder.encode(TEXTS, [0, 1, 2]).select(np.array([True, False, True]))
    expected = encoder.encode([TEXTS[0], TEXTS[2]], [0, 2])
    for name in ("tokens", "word_starts", "lengths", "document_bytes", "document_sources", "sentences"):
        assert np.array_equal(getattr(part, name), getattr(expected, name)), name


@pytest.mark.parametrize("name", SPLIT_FILES)
def test_a_cut_or_missing_file_is_named(store, name):
    path = store / "train" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=name):
        Store.open(store)
    path.unlink()
    with pytest.raises(UserError, match=name):
        Store.open(store)


@pytest.mark.parametrize("name", [*(f"train/{name}" for name in SPLIT_FILES), "tokenizer.json"])
def test_one_flipped_bit_is_found(store, name, monkeypatch):
    path = store / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        Store.open(store)
    monkeypatch.setattr("pretextlm.data.store.SMALL_BYTES", 0)
    with pytest.raises(UserError, match=f"{name} is damaged"):
        Store.open(store).verify()


def change(store, function, keep_hash=False):
    path = store / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    if not keep_hash:
        values.pop("sha256")
    function(values)
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(version=2), "format version 2"),
        (lambda m: m.update(format="other"), "not the manifest"),
        (lambda m: m["splits"].pop("train"), "names the splits"),
        (lambda m: m["splits"]["train"].update(max_id=400), "token id 400"),
        (lambda m: m["splits"]["train"].update(tokens=-1), "negative"),
        (lambda m: m["splits"]["train"].update(tokens=10**15), "tokens.bin"),
        (lambda m: m.update(extra=1), "Unknown key 'extra'"),
        (lambda m: m.pop("sources"), "Missing key 'sources'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(store, edit, message):
    change(store, edit)
    with pytest.raises(UserError, match=message):
        Store.open(store)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m["splits"]["validation"].update(text_bytes=m["splits"]["validation"]["text_bytes"] + 1),
        lambda m: m.update(notes=["another"]),
        lambda m: m["options"].update(seed=1),
        lambda m: m["files"]["train/tokens.bin"].update(sha256="0" * 64),
    ],
)
def test_a_changed_manifest_is_refused(store, edit):
    change(store, edit, keep_hash=True)
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        Store.open(store)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_refused(store, content):
    (store / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        Store.open(store)


def test_a_directory_without_a_manifest_is_no_store(tmp_path):
    with pytest.raises(UserError, match="not a store"):
        Store.open(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        Store.open(tmp_path / "nowhere")
    (tmp_path / "gone.previous").mkdir()
    with pytest.raises(UserError, match=r"gone\.previous"):
        Store.open(tmp_path / "gone")
