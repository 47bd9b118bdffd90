"""Small real things for tests: a vocabulary, a store, models whose outputs are not trivial."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pretextlm.data.encode import TextEncoder
from pretextlm.data.manifest import FileRecord, SourceRecord, read_manifest
from pretextlm.data.store import Store
from pretextlm.data.tokenizer import train_tokenizer
from pretextlm.data.writer import StoreWriter
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

FIXTURES = Path(__file__).parent / "fixtures"
"""Short texts and labelled records of our own."""
PUBLISHED = Path(os.environ.get("PRETEXTLM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
"""Published data sets, which some tests read besides where they are present."""

SUBJECTS = ["The river", "A teacher", "My neighbour", "Every child", "The old captain", "Nobody", "Winter", "The law"]
VERBS = ["carries", "remembers", "follows", "forgets", "brings", "opens", "needs", "leaves"]
OBJECTS = ["the letters", "a quiet harbour", "her brother", "the morning train", "warm bread", "some answers"]
PLACES = ["in the village", "before dawn", "at the bridge", "without a word", "after the storm", "near the coast"]


def published(path: str) -> Path:
    """A file of `PUBLISHED`; the test is skipped where it is absent."""
    if not (PUBLISHED / path).is_file():
        pytest.skip(f"the published file {path} is not here: set PRETEXTLM_DATA to the directory that holds it")
    return PUBLISHED / path


def sentences(count: int, seed: int = 0) -> list[str]:
    """English sentences from a small grammar: learnable, and the same for a seed on every machine."""
    rng = np.random.Generator(np.random.PCG64(seed))
    parts = (SUBJECTS, VERBS, OBJECTS, PLACES)
    return [" ".join(p[int(rng.integers(len(p)))] for p in parts) + "." for _ in range(count)]


def documents(count: int, seed: int = 0) -> list[str]:
    """Documents of one to twelve sentences."""
    rng = np.random.Generator(np.random.PCG64(seed + 1))
    return [" ".join(sentences(int(rng.integers(1, 13)), seed=seed * 10_000 + i)) for i in range(count)]


def make_store(
    directory: Path,
    vocab_size: int = 448,
    train: int = 300,
    validation: int = 40,
    pairs: int = 0,
    like: Store | None = None,
) -> Store:
    """A store of grammar documents with a byte-level BPE tokenizer, and of so many pairs of sentences in each split.

    With `like`, of other documents with that store's tokenizer.
    """
    texts = documents(train + validation, seed=0 if like is None else 5)
    tokenizer = like.tokenizer if like else train_tokenizer("bpe", texts, vocab_size, sentinels=40)
    work = directory.with_name(directory.name + ".work")
    writer = StoreWriter(work, tokenizer.get_vocab_size(), tokenizer.to_str())
    encoder = TextEncoder(tokenizer)
    for split, some in (("train", texts[:train]), ("validation", texts[train:])):
        writer.splits[split].append(encoder.encode(some))
        if pairs:
            couples = list(zip(sentences(pairs, seed=7), sentences(pairs, seed=8), strict=True))
            writer.splits[split].append(encoder.encode(couples, [1] * pairs))
    size = sum(len(text.encode()) for text in texts)
    about = {"licence": "CC0-1.0", "sha256": "0" * 64, "bytes": size}
    records = [SourceRecord(name="grammar", documents=len(texts), **about)]
    if pairs:
        records.append(SourceRecord(name="pairs", documents=2 * pairs, parts=2, **about))
    writer.commit(directory, records, {}, "bpe")
    return Store.open(directory)


def replace_tokenizer(store: Path, values: dict[str, object]) -> None:
    """Give a store another tokenizer.json, and a manifest that fits it."""
    text = json.dumps(values).encode()
    (store / "tokenizer.json").write_bytes(text)
    record = FileRecord(bytes=len(text), sha256=hashlib.sha256(text).hexdigest())
    manifest = read_manifest(store)
    manifest = manifest.model_copy(update={"files": {**manifest.files, "tokenizer.json": record}})
    (store / "manifest.json").write_text(manifest.signed().to_json(), encoding="utf-8")


def make_run(store: Store, directory: Path, objective: str = "causal", layers: int = 1) -> Path:
    """A small run after two steps: what it says is worth nothing, and depends on everything it should."""
    shape = {"hidden_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    training = {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 0}
    data = {"store": str(store.path), "length": 32}
    pretrain(Recipe.load({"data": data, "objective": objective, "model": shape, "training": training}), directory)
    return directory


def make_model(seed: int = 0, **fields: object) -> Transformer:
    """A small model with every matrix random: zero-initialised projections would hide faults."""
    shape = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = Transformer(ModelConfig.parse({**shape, **fields}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()
