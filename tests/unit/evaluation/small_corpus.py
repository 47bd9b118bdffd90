"""A store of made-up sentences in which each word decides the next, and small models to measure on it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.encode import TextEncoder
from pretextlm.data.manifest import SourceRecord
from pretextlm.data.store import Store
from pretextlm.data.tokenizer import train_tokenizer
from pretextlm.data.writer import StoreWriter
from pretextlm.evaluation.trained_model import blank_scorer
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.objectives.registry import build
from pretextlm.scoring.log_probabilities import score_batch
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts

WORDS = ["".join(p) + "n" for p in itertools.product("bdfgkl", "aeiou", "mrst", "o")][::2]
VOCAB_SIZE = 640


def documents(count: int, seed: int) -> list[str]:
    """Sentences are stretches of the one cycle of words."""
    rng = np.random.default_rng(seed)
    return [" ".join(_sentence(rng) for _ in range(rng.integers(2, 6))) for _ in range(count)]


def _sentence(rng: np.random.Generator) -> str:
    start, length = int(rng.integers(len(WORDS))), int(rng.integers(9, 16))
    words = [WORDS[(start + i) % len(WORDS)] for i in range(length)]
    return " ".join([words[0].capitalize(), *words[1:]]) + "."


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """A sentence, and the one that goes on from it."""
    rng = np.random.default_rng(seed)
    return [(_sentence(rng), _sentence(rng)) for _ in range(count)]


def write_store(place: Path, with_pairs: bool = False, with_plain: bool = True) -> Store:
    """200 documents for training and 40 held out, and half as many pairs behind them, or instead, where asked for."""
    texts = {"train": documents(200, 1), "validation": documents(40, 2)}
    further = {"train": pairs(100, 3), "validation": pairs(20, 4)} if with_pairs else {}
    tokenizer = train_tokenizer("bpe", texts["train"], VOCAB_SIZE, sentinels=20)
    encoder = TextEncoder(tokenizer)
    writer = StoreWriter(place.with_suffix(".work"), tokenizer.get_vocab_size(), tokenizer.to_str())
    for name, split in texts.items():
        both = [*(split if with_plain else []), *further.get(name, [])]
        writer.splits[name].append(encoder.encode(both, [int(isinstance(one, tuple)) for one in both]))
    sources = [
        SourceRecord(name="made up", licence="CC0", sha256="0" * 64, bytes=1, documents=240),
        SourceRecord(name="pairs", licence="CC0", sha256="1" * 64, bytes=1, documents=120, parts=2),
    ]
    writer.commit(place, sources[: 1 + with_pairs], {}, "bpe", True)
    return Store.open(place)


def random_scorer(objective: str, store: Store, seed: int = 0, **options: object) -> Scorer:
    """A small model of the objective's kind with random weights everywhere."""
    built = build(objective, options)
    return blank_scorer(random_model(built, store, seed), built, TokenTexts(store.tokenizer, store.vocabulary))


def random_model(objective: Objective, store: Store, seed: int = 0, architecture: str = "") -> Transformer:
    """The model alone."""
    torch.manual_seed(seed)
    config = ModelConfig(
        architecture=architecture or objective.supported_architectures()[0],
        vocab_size=store.vocabulary.size,
        type_vocab_size=objective.num_token_types(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    model = Transformer(config, objective.heads(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0.0, 1.0 if "embed" in name else 0.3)
    return model


def bigram_scorer(store: Store, uniform: bool = False) -> Scorer:
    """A decoder made by hand that predicts the next token from the last by the training text's counts.

    Its blocks do nothing, its embedding is the identity, and its head holds the logarithms of the counts (uniform: 0).
    """
    size = store.vocabulary.size
    width = size + size % 2
    config = ModelConfig(
        architecture="decoder",
        vocab_size=size,
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        tie_word_embeddings=False,
    )
    model = Transformer(config).eval()
    tokens = store.train.tokens.astype(np.int64)
    counts = np.full((size, width), 1e-3, np.float32)
    np.add.at(counts, (tokens[1:], tokens[:-1]), 1)
    with torch.no_grad():
        model.embed_tokens.weight.copy_(torch.eye(size, width))
        head = torch.zeros(size, width) if uniform else torch.from_numpy(np.log(counts / counts.sum(axis=0)))
        model.lm_head.weight.copy_(head / width**0.5)
    return blank_scorer(model, build("causal"), TokenTexts(store.tokenizer, store.vocabulary))


def log_likelihood_alone(scorer: Scorer, source: list[int] | None, context: list[int], text: list[int]) -> float:
    """log p(text | source, context) in one forward pass over this text alone."""
    row = [*context, *text]
    labels = np.array([[IGNORE] * (len(context) - 1) + text], np.int32)
    inputs = np.array([row[:-1]], np.int32)
    if source is None:
        batch = Batch(input_ids=inputs, labels=labels, attention="causal")
    elif scorer.model.encoder is None:
        ids = np.array([[*source, *row[:-1]]], np.int32)
        labels = np.concatenate([np.full((1, len(source)), IGNORE, np.int32), labels], axis=1)
        batch = Batch(input_ids=ids, labels=labels, prefix=np.full_like(ids, len(source)), attention="prefix")
    else:
        batch = Batch(input_ids=np.array([source], np.int32), decoder_input_ids=inputs, decoder_labels=labels)
    return float(score_batch(scorer.model, batch).log_probabilities.sum())
