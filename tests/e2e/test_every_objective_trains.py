"""Sixty steps on stories: every objective, on every architecture it suits, learns more than word frequencies.

With PRETEXTLM_DATA set to a directory of published data sets, the stories are passages of BoolQ and the translations
those of Multi30k.
"""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from tests.builders import published
from tests.stories import functions, stories, translations

from pretextlm.batch import IGNORE
from pretextlm.data.prepare import PrepareConfig, prepare
from pretextlm.data.store import Store
from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.objectives.replaced_token import propose
from pretextlm.training.forward import Forward
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.validation import evaluation_batches

ON_PUBLISHED_TEXT = "PRETEXTLM_DATA" in os.environ
STEPS, LENGTH = 60, 96
TOKENS = 3072 if ON_PUBLISHED_TEXT else 1536
"""Of a step; twice as many for those that learn more slowly than the others."""
SLOW = ("sentence_order", "permutation", "replaced_token")

pytestmark = pytest.mark.slow

ROWS, PAIRS = 200, 600
"""Rows of the validation, and where a share of right answers must be told from chance."""

CASES: list[tuple[str, dict[str, Any]]] = [
    ("causal", {}),
    ("masked", {}),
    ("masked", {"unit": "word", "rate": 0.3, "final_rate": 0.15}),
    ("masked", {"predict": "next"}),
    ("prefix", {}),
    ("prefix", {"layout": "encoder_decoder"}),
    ("span_corruption", {}),
    ("span_corruption", {"layout": "prefix"}),
    ("denoisers", {"table": "ul2"}),
    ("denoisers", {"table": "teaching", "layout": "prefix"}),
    ("next_sentence", {}),
    ("sentence_order", {}),
    ("word_structure", {}),
    ("span_boundary", {}),
    ("replaced_token", {}),
    ("replaced_token", {"sharing": "gradient_disentangled"}),
    ("denoising", {}),
    ("masked_sequence", {}),
    ("mixed_visibility", {}),
    ("permutation", {}),
    ("fill_in_middle", {}),
    ("bimodal_code", {}),
    ("text_to_text", {"unsupervised": 0.5}),
    ("distillation", {"inner": {"name": "masked"}}),
]


def runs() -> Iterator[Any]:
    for name, options in CASES:
        for architecture in build(name, options).supported_architectures():
            yield pytest.param(
                name, options, architecture, id="-".join([name, *map(str, options.values()), architecture])
            )


def test_every_registered_objective_is_trained():
    assert {name for name, _ in CASES} == set(OBJECTIVES)


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> dict[str, Path]:
    """Stories; the same beside translations; functions with their docstrings."""
    directory = tmp_path_factory.mktemp("data")
    write(directory / "stories.jsonl", passages() if ON_PUBLISHED_TEXT else stories(2000))
    write(directory / "translations.jsonl", translations(2000))
    write(directory / "functions.jsonl", functions(2000))
    multi30k = published("tasks/multi30k/train.jsonl.gz") if ON_PUBLISHED_TEXT else directory / "translations.jsonl"
    sources = {
        "text": [str(directory / "stories.jsonl")],
        "tasks": [
            str(directory / "stories.jsonl"),
            f"{multi30k}?source=en&target=de&prefix=translate English to German: ",
        ],
        "code": [f"{directory / 'functions.jsonl'}?source=docstring&target=code"],
    }
    config = PrepareConfig(vocab_size=512, validation=0.2)
    return {name: prepare(source, directory / name, config).path for name, source in sources.items()}


def write(path: Path, records: Iterator[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def passages(count: int = 2000) -> Iterator[dict[str, str]]:
    """Questions of BoolQ with their passages."""
    with gzip.open(published("tasks/boolq/train.jsonl.gz"), "rt", encoding="utf-8") as file:
        for _, line in zip(range(count), file, strict=False):
            record = json.loads(line)
            yield {"text": f"{record['question'].capitalize()}? {record['passage']}"}


def recipe(store: Path, name: str, options: dict[str, Any], architecture: str) -> Recipe:
    model = {"architecture": architecture, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    tokens = 2 * TOKENS if name in SLOW else TOKENS
    training = {"budget_steps": STEPS, "batch_tokens": tokens, "learning_rate": 0.01, "dtype": "fp32"}
    training |= {
        "validations": 1,
        "validation_rows": PAIRS if name in ("next_sentence", "sentence_order") else ROWS,
        "compile": "off",
        "checkpoint_seconds": 1e6,
    }
    return Recipe.load(
        {
            "data": {"store": str(store), "length": LENGTH},
            "objective": {"name": name, **options},
            "model": model,
            "training": training,
        }
    )


@pytest.fixture(scope="module")
def teacher(stores, tmp_path_factory) -> str:
    place = tmp_path_factory.mktemp("teacher") / "run"
    chosen = recipe(stores["text"], "masked", {}, "encoder")
    wide = chosen.model_copy(update={"model": chosen.model.model_copy(update={"num_hidden_layers": 4})})
    pretrain(wide, place)
    return str(place)


def unigram_loss(chosen: Recipe, store: Store) -> float:
    """Nats per label of a model that knows how frequent each label is in training, and nothing else."""
    objective, vocabulary = chosen.training_objective, store.vocabulary

    def labels(split):
        reader = objective.reader(split, vocabulary, LENGTH)
        found = [b.targets for b in evaluation_batches(reader, objective, vocabulary, ROWS, seed=3)]
        return np.concatenate([t[t != IGNORE] for t in found])

    counts = np.bincount(labels(store.train), minlength=vocabulary.size) + 1.0
    return float(-np.log(counts / counts.sum())[labels(store.validation)].mean())


def judge_entropy(run, store: Store) -> float:
    """Nats per token of a judge that knows only how often its generator replaces one."""
    objective, vocabulary = run.recipe.training_objective, store.vocabulary
    forward = Forward(run.load_model(), objective, torch.device("cpu"), torch.float32)
    reader = objective.reader(store.validation, vocabulary, LENGTH)
    with torch.inference_mode():
        batches = evaluation_batches(reader, objective, vocabulary, ROWS, seed=run.recipe.evaluation.seed)
        shares = [propose(forward(batch, "generator"), batch)[1].float().mean().item() for batch in batches]
    share = float(np.mean(shares))
    return -share * math.log(share) - (1 - share) * math.log(1 - share)


@pytest.mark.parametrize(("name", "options", "architecture"), list(runs()))
def test_sixty_steps_beat_word_frequencies(request, stores, tmp_path, name, options, architecture):
    if name == "distillation":
        options = {**options, "teacher": request.getfixturevalue("teacher")}
    store = stores[{"bimodal_code": "code", "text_to_text": "tasks"}.get(name, "text")]
    chosen = recipe(store, name, options, architecture)
    run = pretrain(chosen, tmp_path / "run")
    last = [line for line in run.metrics() if line["kind"] == "validation"][-1]
    opened = Store.open(store)
    assert last.get("lm_loss", last["loss"]) < unigram_loss(chosen, opened) - 0.05
    if "pair_accuracy" in last:
        right = round(last["pair_accuracy"] * PAIRS)
        assert binomtest(right, PAIRS, 0.5, alternative="greater").pvalue < 1e-3
    if "replaced_loss" in last:
        assert last["replaced_loss"] < judge_entropy(run, opened)
