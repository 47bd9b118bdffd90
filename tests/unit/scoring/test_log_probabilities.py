"""Log-probabilities are those of reading each text by itself, whatever is read beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpus import log_likelihood_alone, random_scorer

from pretextlm.batch import IGNORE, Batch
from pretextlm.scoring import log_probabilities
from pretextlm.scoring.log_probabilities import batches_by_length, score_batch, score_continuations


def texts(count: int, low: int, high: int, longest: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(low, high, rng.integers(1, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("kind", ["causal", "encoder_decoder", "prefix"])
@pytest.mark.parametrize("tokens_at_once", [1, 40, 10_000])
def test_continuations_score_as_if_each_were_read_alone(store, kind, tokens_at_once, monkeypatch):
    scorer = (
        random_scorer("causal", store) if kind == "causal" else random_scorer("span_corruption", store, layout=kind)
    )
    size = store.vocabulary.size
    monkeypatch.setattr(log_probabilities, "TOKENS_PER_BATCH", tokens_at_once)
    contexts = [*texts(5, 100, size, 7, 1), [120]]
    choices = [texts(n, 100, size, 5, n) for n in (1, 4, 2, 3, 5, 1)]
    sources = None if kind == "causal" else texts(6, 100, size, 9, 2)
    found = score_continuations(scorer.model, scorer.vocabulary, contexts, choices, sources)
    for i, many in enumerate(choices):
        for scored, choice in zip(found[i], many, strict=True):
            logs = scored.log_probabilities
            expected = log_likelihood_alone(scorer, sources and sources[i], contexts[i], choice)
            assert len(logs) == len(choice)
            assert logs.sum() == pytest.approx(expected, abs=2e-4)


def test_closers_add_the_probability_that_any_of_them_follows(store):
    scorer = random_scorer("causal", store)
    context, choice, closers = [101, 102], [103, 104], [7, 110, 130]
    ((scored,),) = score_continuations(scorer.model, scorer.vocabulary, [context], [[choice]], None, closers)
    logs = scored.log_probabilities
    each = [log_likelihood_alone(scorer, None, [*context, *choice], [closer]) for closer in closers]
    assert logs[:2].sum() == pytest.approx(log_likelihood_alone(scorer, None, context, choice), abs=1e-4)
    assert logs[2] == pytest.approx(np.logaddexp.reduce(each), abs=1e-4)


def test_labels_of_a_uniform_model_cost_the_logarithm_of_the_vocabulary(store):
    scorer = random_scorer("causal", store)
    with torch.no_grad():
        scorer.model.embed_tokens.weight.zero_()
    batch = Batch(input_ids=np.array([[5, 9]], np.int32), labels=np.array([[9, IGNORE]], np.int32), attention="causal")
    assert score_batch(scorer.model, batch).log_probabilities == pytest.approx([-np.log(store.vocabulary.size)])


def test_batches_hold_every_row_once_and_no_more_than_the_limit(monkeypatch):
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    monkeypatch.setattr(log_probabilities, "TOKENS_PER_BATCH", 64)
    groups = list(batches_by_length(lengths))
    assert sorted(np.concatenate(groups).tolist()) == list(range(200))
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 64 for g in groups)
