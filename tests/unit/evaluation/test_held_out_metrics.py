"""Measures of each objective equal what their definitions give by brute force, whatever the batch."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from small_corpus import bigram_scorer, log_likelihood_alone, random_model, random_scorer

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.document_rows import by_document
from pretextlm.errors import UserError
from pretextlm.evaluation.held_out_metrics import HeldOut, held_out_metrics
from pretextlm.metric import area_under_curve, exponential, mean, ratio, weighted_ratios
from pretextlm.model import generation
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared.measures import pseudo_loss, sampled_sentences
from pretextlm.objectives.shared.span_exact_match import split_spans
from pretextlm.scoring.log_probabilities import score_batch
from pretextlm.training.validation import validate


def held_out(store, scorer, objective, documents=6, **options) -> HeldOut:
    split = store.validation.first_documents(documents)
    return HeldOut(scorer.model, objective, scorer.vocabulary, split, 32, 5, scorer, **options)


KINDS = [
    ("causal", {}),
    ("masked", {}),
    ("masked", {"predict": "next"}),
    ("span_corruption", {}),
    ("denoisers", {}),
    ("next_sentence", {}),
    ("sentence_order", {"inner": {"name": "span_boundary"}}),
    ("word_structure", {}),
    ("replaced_token", {}),
    ("mixed_visibility", {}),
    ("permutation", {}),
    ("masked_sequence", {}),
]
each_kind = pytest.mark.parametrize(("objective", "options"), KINDS, ids=str)


@each_kind
def test_measures_do_not_depend_on_how_many_rows_are_measured_at_once(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    built = build(objective, options)
    one, many = (held_out_metrics(held_out(store, scorer, built, 24, batch_tokens=n)) for n in (1, 100))
    assert one.keys() == many.keys()
    for name, metric in one.items():
        assert metric.n == many[name].n
        assert metric.value == pytest.approx(many[name].value, rel=1e-4)
        assert metric.stderr == pytest.approx(many[name].stderr, rel=1e-3)
        sure = metric.unit == "share" and metric.value in (0, 1)
        assert (metric.stderr == 0) == sure


@each_kind
def test_losses_are_those_of_validation_and_accuracies_too(store, objective, options):
    data = held_out(store, random_scorer(objective, store, **options), build(objective, options))
    reader = by_document(data.objective.reader(data.split, data.vocabulary, 32), data.seed)
    expected = validate(data.forward, reader, data.objective, data.vocabulary, 10**6, data.seed)
    metrics = held_out_metrics(data)
    assert metrics["loss"].value == pytest.approx(expected.loss, rel=1e-5)
    assert metrics["loss"].n == sum(term.count for term in expected.terms.values())
    for name, value in expected.parts.items():
        assert metrics[name].value == pytest.approx(value, rel=1e-5)
        assert metrics[name].n == expected.terms[name.rpartition("_")[0]].count


def test_a_distilled_model_is_measured_by_its_inner_objective():
    objective = build("distillation", {"teacher": "gone", "inner": "causal"})
    assert objective.at_evaluation() == build("causal")
    assert build("replaced_token").at_evaluation() == build("replaced_token")


def test_a_text_without_rows_for_an_objective_is_looked_for_in_the_whole_split(pair_store):
    objective = build("bimodal_code")
    model, v = random_model(objective, pair_store), pair_store.vocabulary
    few = pair_store.validation.first_documents(3)  # the pairs stand behind
    with pytest.raises(UserError):
        held_out_metrics(HeldOut(model, objective, v, few, 32, 5))
    metrics = held_out_metrics(HeldOut(model, objective, v, few, 32, 5, full_split=pair_store.validation))
    assert set(metrics) == {"loss", "fill_accuracy"}


def test_every_token_and_every_end_of_a_document_is_a_causal_target_once(store):
    metrics = held_out_metrics(held_out(store, bigram_scorer(store), build("causal")))
    split = store.validation.first_documents(6)
    assert metrics["loss"].n == split.num_tokens + split.num_documents
    assert metrics["perplexity"].value == pytest.approx(math.exp(metrics["loss"].value))


def test_bits_per_byte_are_the_bits_of_whole_documents_by_their_bytes(store):
    scorer = bigram_scorer(store)  # looks one token back only, so that rows change nothing
    split = store.validation.first_documents(6)
    v = store.vocabulary
    nats = -sum(log_likelihood_alone(scorer, None, [v.bos], [*split.document(i).tolist(), v.eos]) for i in range(6))
    text = "".join(store.tokenizer.decode(split.document(i).tolist()) for i in range(6))
    first_rows = held_out_metrics(held_out(store, scorer, build("causal")))
    assert split.text_bytes == len(text.encode())
    wide = dataclasses.replace(held_out(store, scorer, build("causal")), length=1000)
    assert held_out_metrics(wide)["bits_per_byte"].value == pytest.approx(
        nats / math.log(2) / len(text.encode()), rel=1e-4
    )
    assert first_rows["bits_per_byte"].value == pytest.approx(nats / math.log(2) / len(text.encode()), rel=1e-4)


def test_pseudo_loss_masks_each_token_alone(store):
    scorer = random_scorer("masked", store)
    v = store.vocabulary
    data = held_out(store, scorer, build("masked"))
    sentences = sampled_sentences(data.split, 5, 30)
    costs = []
    for sentence in sentences:
        for place, token in enumerate(sentence):
            row = [v.cls, *sentence, v.sep]
            row[place + 1] = v.mask
            labels = np.full((1, len(row)), IGNORE, np.int32)
            labels[0, place + 1] = token
            scored = score_batch(scorer.model, Batch(input_ids=np.array([row], np.int32), labels=labels))
            costs.append(-scored.log_probabilities[0])
    found = pseudo_loss(data, 30)
    assert found.n == len(costs) >= 30
    assert found.value == pytest.approx(np.mean(costs), abs=1e-4)


@pytest.mark.parametrize(
    ("objective", "options"), [("masked", {}), ("masked", {"predict": "next"}), ("mixed_visibility", {"masked": 3})]
)
def test_fill_accuracy_counts_hidden_tokens_only(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    metrics = held_out_metrics(held_out(store, scorer, build(objective, options)))
    masks = sum(
        int((b.input_ids == store.vocabulary.mask).sum())
        for _, b in held_out(store, scorer, build(objective, options)).batches()
    )
    assert metrics["fill_accuracy"].n == masks < metrics["loss"].n


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_spans_written_back_word_for_word_are_counted(store, layout, monkeypatch):
    scorer = random_scorer("span_corruption", store, layout=layout)
    data = held_out(store, scorer, build("span_corruption", {"layout": layout}))
    targets = [labels[labels != IGNORE].tolist() for _, batch in data.batches() for labels in batch.targets]
    sources: list[list[int]] = []

    def perfect(model, vocabulary, prompts, settings, decoder_prompts):
        assert len(prompts) == len(targets)
        sources.extend(prompts)
        return [target[1:-1] for target in targets]

    def half(model, vocabulary, prompts, settings, decoder_prompts):
        """The first span of each row is right, the others are missing."""
        second = vocabulary.sentinels[1]
        return [target[1 : target.index(second)] if second in target else target[1:-1] for target in targets]

    monkeypatch.setattr(generation, "generate", perfect)
    exact = held_out_metrics(data)["span_exact_match"]
    sentinels = set(store.vocabulary.sentinels)
    spans = [sum(token in sentinels for token in target) for target in targets]
    assert exact.value == 1.0
    assert exact.n == sum(spans)
    assert all(source[-1] == store.vocabulary.eos for source in sources)
    assert all(sum(t in sentinels for t in source) == n for source, n in zip(sources, spans, strict=True))
    monkeypatch.setattr(generation, "generate", half)
    assert held_out_metrics(data)["span_exact_match"].value == pytest.approx(len(spans) / sum(spans))


def test_spans_are_split_at_sentinels():
    assert split_spans([91, 5, 6, 92, 7, 91, 8], {91, 92}) == {91: [5, 6], 92: [7]}
    assert split_spans([3, 91], {91}) == {91: []}


def test_standard_errors_of_means_and_ratios():
    sample = np.random.default_rng(0).normal(3, 2, 400)
    metric = mean(sample, "nats", "lower")
    assert metric.stderr == pytest.approx(sample.std(ddof=1) / 20)
    same = ratio(sample, np.ones(400), "nats", "lower")
    assert (same.value, same.stderr) == pytest.approx((metric.value, metric.stderr))
    grouped = ratio(sample.reshape(40, 10).sum(axis=1), np.full(40, 10), "nats", "lower")
    assert grouped.stderr == pytest.approx(sample.reshape(40, 10).mean(axis=1).std(ddof=1) / 40**0.5)
    assert exponential(metric).stderr == pytest.approx(math.exp(metric.value) * metric.stderr)
    assert mean([1.0], "share", "higher").stderr is None
    assert ratio([1.0, 0.0], [2, 0], "share", "higher").value == 0.5


def test_a_sum_of_terms_is_the_sum_of_their_means_with_the_error_of_the_sum():
    rng = np.random.default_rng(0)
    counts, others = rng.integers(1, 9, 60), rng.integers(0, 5, 60)
    totals, further = rng.normal(3, 1, 60) * counts, rng.normal(1, 1, 60) * others
    one = ratio(totals, counts, "nats", "lower")
    assert weighted_ratios([(totals, counts, 1.0)], "nats", "lower") == one
    both = weighted_ratios([(totals, counts, 1.0), (further, others, 50.0)], "nats", "lower")
    assert both.value == pytest.approx(one.value + 50 * further.sum() / others.sum())
    assert both.n == counts.sum() + others.sum()
    resampled = []
    for _ in range(4000):
        i = rng.integers(0, 60, 60)
        resampled.append(totals[i].sum() / counts[i].sum() + 50 * further[i].sum() / others[i].sum())
    assert both.stderr == pytest.approx(np.std(resampled), rel=0.08)


@pytest.mark.slow
def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(1)
    positive, group = rng.random(300) < 0.2, np.repeat(np.arange(30), 10)
    score = np.round(rng.normal(size=300) + positive, 1)  # some ties
    above = score[positive][:, None] - score[~positive]
    metric = area_under_curve(score, positive, group)
    assert metric.value == pytest.approx(((above > 0) + 0.5 * (above == 0)).mean())
    assert metric.n == 300
    without = [area_under_curve(score[group != g], positive[group != g], group[group != g]).value for g in range(30)]
    assert metric.stderr == pytest.approx(math.sqrt(29 / 30 * ((without - np.mean(without)) ** 2).sum()))
    assert area_under_curve(np.zeros(300), positive, group).value == 0.5
    assert area_under_curve(score, np.zeros(300, bool), group) is None
