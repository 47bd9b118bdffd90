"""Log-probabilities are those of reading each text by itself, whatever is read beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpus import random_filler

from pretextlm.batch import IGNORE, Batch
from pretextlm.evaluation import scoring
from pretextlm.evaluation.scoring import by_length, score_batch, weigh_continuations


def texts(count: int, low: int, high: int, longest: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, rng.integers(1, longest)).tolist() for _ in range(count)]


def alone(filler, source, context, text) -> float:
    """log p(text | source, context) in one forward pass over this text alone."""
    row = [*context, *text]
    labels = np.array([[IGNORE] * (len(context) - 1) + text], np.int32)
    inputs = np.array([row[:-1]], np.int32)
    if source is None:
        batch = Batch(input_ids=inputs, labels=labels, attention="causal")
    elif filler.model.encoder is None:
        ids = np.array([[*source, *row[:-1]]], np.int32)
        labels = np.concatenate([np.full((1, len(source)), IGNORE, np.int32), labels], axis=1)
        batch = Batch(input_ids=ids, labels=labels, prefix=np.full_like(ids, len(source)), attention="prefix")
    else:
        batch = Batch(input_ids=np.array([source], np.int32), decoder_input_ids=inputs, decoder_labels=labels)
    return float(score_batch(filler.model, batch).log_probabilities.sum())


@pytest.mark.parametrize("kind", ["causal", "encoder_decoder", "prefix"])
@pytest.mark.parametrize("tokens_at_once", [1, 40, 10_000])
def test_continuations_score_as_if_each_were_read_alone(store, kind, tokens_at_once, monkeypatch):
    filler = (
        random_filler("causal", store) if kind == "causal" else random_filler("span_corruption", store, layout=kind)
    )
    size = store.vocabulary.size
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", tokens_at_once)
    contexts = [*texts(5, 100, size, 7, 1), [120]]
    choices = [texts(n, 100, size, 5, n) for n in (1, 4, 2, 3, 5, 1)]
    sources = None if kind == "causal" else texts(6, 100, size, 9, 2)
    found = weigh_continuations(filler.model, filler.vocabulary, contexts, choices, sources)
    for i, many in enumerate(choices):
        for scored, choice in zip(found[i], many, strict=True):
            logs = scored.log_probabilities
            expected = alone(filler, sources and sources[i], contexts[i], choice)
            assert len(logs) == len(choice)
            assert logs.sum() == pytest.approx(expected, abs=2e-4)


def test_closers_add_the_probability_that_any_of_them_follows(store):
    filler = random_filler("causal", store)
    context, choice, closers = [101, 102], [103, 104], [7, 110, 130]
    ((scored,),) = weigh_continuations(filler.model, filler.vocabulary, [context], [[choice]], None, closers)
    logs = scored.log_probabilities
    each = [alone(filler, None, [*context, *choice], [closer]) for closer in closers]
    assert logs[:2].sum() == pytest.approx(alone(filler, None, context, choice), abs=1e-4)
    assert logs[2] == pytest.approx(np.logaddexp.reduce(each), abs=1e-4)


def test_labels_of_a_uniform_model_cost_the_logarithm_of_the_vocabulary(store):
    filler = random_filler("causal", store)
    with torch.no_grad():
        filler.model.embed_tokens.weight.zero_()
    batch = Batch(input_ids=np.array([[5, 9]], np.int32), labels=np.array([[9, IGNORE]], np.int32), attention="causal")
    assert score_batch(filler.model, batch).log_probabilities == pytest.approx([-np.log(store.vocabulary.size)])


def test_groups_hold_every_row_once_and_no_more_than_the_limit():
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    groups = list(by_length(lengths, 64))
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 64 for g in groups)
