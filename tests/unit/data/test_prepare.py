"""Preparation: exact, repeatable, the same for any number of workers, resumable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pretextlm.data import prepare as module
from pretextlm.data.prepare import PrepareConfig, prepare
from pretextlm.data.sampling import Sample
from pretextlm.data.store import Store
from pretextlm.errors import UserError


def text(number):
    words = ["river", "바다는", "letter", "bread", "새벽에", "morning", "harbour"]
    rng = np.random.default_rng(number)
    return " ".join(words[i] for i in rng.integers(0, 7, 30)) + f". Document {number}!"


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text(n)}) + "\n" for n in range(400)), encoding="utf-8")
    return path


def options(**values):
    return PrepareConfig.parse({"vocab_size": 640, **values})


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def texts_of(store, split):
    return [store.tokenizer.decode(split.document(i).tolist()) for i in range(split.num_documents)]


@pytest.mark.parametrize("tokenizer", ["bpe", "wordpiece", "unigram", "character"])
def test_every_document_is_in_exactly_one_split_as_it_was(tmp_path, corpus, tokenizer):
    prepare([str(corpus)], tmp_path / "store", options(tokenizer=tokenizer, validation=0.1, vocab_size=704))
    store = Store.open(tmp_path / "store")
    store.verify()
    train, validation = texts_of(store, store.train), texts_of(store, store.validation)
    assert sorted(train + validation) == sorted(text(n) for n in range(400))
    assert len(validation) == 40
    assert not (tmp_path / "store.partial").exists()


def test_the_manifest_tells_where_the_text_came_from(tmp_path, corpus):
    second = tmp_path / "more.txt"
    second.write_text("One more document, of another licence. \n", encoding="utf-8")
    prepare([str(corpus), str(second)], tmp_path / "store", options(licence="CC0-1.0"))
    store = Store.open(tmp_path / "store")
    first, more = store.manifest["sources"]
    assert (first["documents"], more["documents"], more["bytes"]) == (400, 1, 40)
    assert first["licence"] == "CC0-1.0"
    assert first["sha256"] != more["sha256"]
    from_second = np.concatenate([store.train.document_sources, store.validation.document_sources]) == 1
    assert from_second.sum() == 1
    assert store.train.text_bytes + store.validation.text_bytes == first["bytes"] + more["bytes"]


def test_preparing_again_with_other_workers_gives_the_same_bytes(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 3000)
    prepare([str(corpus)], tmp_path / "a", options())
    prepare([str(corpus)], tmp_path / "b", options(workers=4))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_split_does_not_depend_on_the_order_of_documents(tmp_path, corpus):
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(corpus.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    for source, out in ((corpus, "a"), (turned, "b")):
        prepare([str(source)], tmp_path / out, options(validation=0.2))
    stores = [Store.open(tmp_path / out) for out in "ab"]
    assert set(texts_of(stores[0], stores[0].validation)) == set(texts_of(stores[1], stores[1].validation))
    assert contents(tmp_path / "a")["tokenizer.json"] == contents(tmp_path / "b")["tokenizer.json"]


@pytest.mark.parametrize("stop_after", [0, 1, 4, 9])
def test_an_interrupted_preparation_goes_on_to_the_same_bytes(tmp_path, corpus, monkeypatch, stop_after):
    monkeypatch.setattr(module, "SHARD_BYTES", 3000)
    prepare([str(corpus)], tmp_path / "whole", options())
    real, done = module.save_shard, []

    def dies(path, shard, encoder):
        if len(done) == stop_after:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, shard, encoder)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare([str(corpus)], tmp_path / "store", options())
    assert not (tmp_path / "store").exists()
    assert all(path.is_file() for path in done)
    encoded = []
    monkeypatch.setattr(
        "pretextlm.data.encode.TextEncoder.encode",
        lambda self, *args, real=module.TextEncoder.encode: encoded.append(1) or real(self, *args),
    )
    prepare([str(corpus)], tmp_path / "store", options())
    shards = -(-sum(len(text(n).encode()) for n in range(400)) // 3000)
    assert len(encoded) <= shards - stop_after + 2
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert not (tmp_path / "store.partial").exists()


def test_what_other_options_left_behind_is_not_used(tmp_path, corpus):
    def dies(stage, *_):
        if stage == "writing the store":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare([str(corpus)], tmp_path / "store", options(), dies)
    assert (tmp_path / "store.partial").exists()
    prepare([str(corpus)], tmp_path / "store", options(vocab_size=500))
    prepare([str(corpus)], tmp_path / "fresh", options(vocab_size=500))
    assert contents(tmp_path / "store") == contents(tmp_path / "fresh")


def test_a_tokenizer_can_be_taken_from_another_store(tmp_path, corpus):
    prepare([str(corpus)], tmp_path / "first", options())
    prepare([str(corpus)], tmp_path / "second", options(tokenizer=str(tmp_path / "first")))
    first, second = Store.open(tmp_path / "first"), Store.open(tmp_path / "second")
    assert np.array_equal(first.train.tokens, second.train.tokens)
    assert first.vocabulary == second.vocabulary


def test_one_large_text_file_is_a_usable_corpus(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"{text(n)}\n\n" for n in range(1500)), encoding="utf-8")
    prepare([str(path)], tmp_path / "store", options())
    store = Store.open(tmp_path / "store")
    assert store.validation.num_documents >= 1
    assert store.train.num_documents >= 4
    assert sum(split.text_bytes for split in (store.train, store.validation)) == path.stat().st_size


def test_the_tail_of_one_text_is_held_out_to_the_character(tmp_path):
    whole = "".join(text(n) + "\n" for n in range(20))
    (tmp_path / "one.txt").write_text(whole, encoding="utf-8")
    values = options(tokenizer="character", validation_tail=0.1, split_long=0)
    prepare([str(tmp_path / "one.txt")], tmp_path / "store", values)
    store = Store.open(tmp_path / "store")
    at = int(len(whole) * 0.9)
    assert (texts_of(store, store.train), texts_of(store, store.validation)) == ([whole[:at]], [whole[at:]])


def test_the_tail_of_every_source_is_held_out_in_order(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(module, "SHARD_BYTES", 3000)
    second = tmp_path / "second.txt"
    second.write_text("first line\nsecond\nthird line", encoding="utf-8")
    prepare([str(corpus), str(second)], tmp_path / "store", options(validation_tail=0.5, text_mode="lines"))
    store = Store.open(tmp_path / "store")
    train, validation = texts_of(store, store.train), texts_of(store, store.validation)
    every = [text(n) for n in range(400)]
    assert "".join(train[:-2] + validation[:-2]) == "".join(every)
    assert abs(len("".join(train[:-2])) - len("".join(validation[:-2]))) <= 1
    assert (train[-2:], validation[-2:]) == (["first line", "sec"], ["ond", "third line"])


def test_a_text_of_one_character_cannot_be_split(tmp_path):
    (tmp_path / "one.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="too short"):
        prepare([str(tmp_path / "one.txt")], tmp_path / "store", options(validation_tail=0.1))


def test_the_sample_is_bounded_and_the_same_in_any_order():
    documents = [text(n) for n in range(300)]
    forward, backward = Sample(5000), Sample(5000)
    for document in documents:
        forward.add(document)
    for document in reversed(documents):
        backward.add(document)
    assert list(forward.texts()) == list(backward.texts())
    assert 4500 < sum(len(t.encode()) for t in forward.texts()) <= 5500
    assert forward.seen == sum(len(t.encode()) for t in documents)
    places = [documents.index(t) for t in forward.texts() if t in documents]
    assert min(places) < 60
    assert max(places) > 240


def test_progress_is_told_and_ends_at_the_whole(tmp_path, corpus):
    told = []
    prepare([str(corpus)], tmp_path / "store", options(), lambda *args: told.append(args))
    size = sum(len(text(n).encode()) for n in range(400))
    assert ("encoding", size, size) in told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"validation": 0.0}, "validation"),
        ({"validation": 1.0}, "validation"),
        ({"validation_tail": 0.0}, "validation_tail"),
        ({"validation_tail": 1.0}, "validation_tail"),
        ({"workers": 0}, "workers"),
        ({"sentinels": -1}, "sentinels"),
        ({"split_long": 3}, "split_long"),
        ({"vocab_size": 100}, "too small"),
        ({"tokenizer": "bpee"}, "no tokenizer 'bpee'"),
    ],
)
def test_an_option_out_of_its_range_is_a_user_error(tmp_path, corpus, values, message):
    with pytest.raises(UserError, match=message):
        prepare([str(corpus)], tmp_path / "store", options(**values))
    assert [path for path in Path(tmp_path).iterdir() if path.name.startswith("store")] == []
