"""A continuation's score is what one forward pass over its own row says, whatever is weighed beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_corpus import WORDS, documents, random_scorer

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.text_template import TextTemplate
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.request_scorer import Request
from pretextlm.evaluation.benchmarks.request_scorers import request_scorer
from pretextlm.model.model_inputs import prepare
from pretextlm.objectives.registry import build
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import OPEN
from pretextlm.scoring.log_probabilities import score_batch
from pretextlm.scoring.token_texts import TokenTexts

DECODERS = {
    "causal": {},
    "prefix": {},
    "span_corruption": {},
    "denoising": {},
    "denoisers": {},
    "mixed_visibility": {},
    "text_to_text": {},
}
OTHERS = ["masked", "replaced_token", "permutation", "masked_sequence"]


def requests(seed: int = 0, count: int = 12) -> list[Request]:
    """Continuations of several words after texts of many lengths, shared by some; and whole texts."""
    rng = np.random.default_rng(seed)
    found = []
    for text in documents(count // 4, seed):
        words = text.split()[: int(rng.integers(3, 25))]
        many = [" " + " ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(3)]
        found += [Request(" ".join(words), one) for one in many]
        found.append(Request("", text[:40]))
    return found


def opened(objective: str, store, **options: object):
    scorer = random_scorer(objective, store, **options)
    return scorer.model, build(objective, options), scorer.texts


def alone(model, prompt, ids: list[int]) -> tuple[float, bool]:
    """log p(ids | prompt) in one pass over this row alone, and whether each id is the likeliest."""
    row = [*prompt.context, *ids]
    labels = np.array([[IGNORE] * (len(prompt.context) - 1) + list(ids)], np.int32)
    inputs, source = np.array([row[:-1]], np.int32), prompt.source
    if source is None:
        batch = Batch(input_ids=inputs, labels=labels, attention="causal")
    elif model.encoder is None:
        source = source[: len(source) - prompt.reread]
        whole = np.array([[*source, *row[:-1]]], np.int32)
        labels = np.concatenate([np.full((1, len(source)), IGNORE, np.int32), labels], axis=1)
        prefix = np.full_like(whole, len(source) + prompt.reread)
        batch = Batch(input_ids=whole, labels=labels, prefix=prefix, attention="prefix")
    else:
        batch = Batch(input_ids=np.array([source], np.int32), decoder_input_ids=inputs, decoder_labels=labels)
    scored = score_batch(model, batch)
    return float(scored.log_probabilities.sum()), bool(scored.is_likeliest.all())


@pytest.mark.parametrize("objective", DECODERS)
def test_a_decoder_weighs_a_continuation_as_one_pass_over_it_does(store, objective):
    model, built, texts = opened(objective, store)
    asked = requests()
    scorer = request_scorer(model, built, texts, "continuation", batch_size=5)
    for request, score in zip(asked, scorer.score(asked), strict=True):
        before, ids, _ = scorer.split(request.context, request.continuation)
        expected, greedy = alone(model, scorer.prompt(before), list(ids))
        assert score.num_tokens == len(ids)
        assert score.log_likelihood == pytest.approx(expected, abs=2e-4)
        assert score.is_greedy == greedy


@pytest.mark.parametrize("objective", [*DECODERS, *OTHERS])
def test_the_size_of_a_batch_changes_no_weight(store, objective):
    model, built, texts = opened(objective, store)
    asked = requests(seed=1)
    first, second = (request_scorer(model, built, texts, batch_size=size).score(asked) for size in (1, 16))
    assert [w.num_tokens for w in first] == [w.num_tokens for w in second]
    for one, other in zip(first, second, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5 * one.num_tokens)


def hidden_one_by_one(scorer, before, ids, by_word: bool) -> list[float]:
    """Each token's log-probability with it (and what follows in its word) as [MASK], each in a pass of its own."""
    found = []
    for place in range(len(ids)):
        stop = place + 1
        while by_word and stop < len(ids) and not scorer.texts.begins_word[ids[stop]]:
            stop += 1
        filled = [*ids[:place], *[OPEN] * (stop - place), *ids[stop:]]
        shown = scorer.layout.row(Blank(before, ()), filled)
        row = list(shown.tokens)
        labels = np.full((1, len(row)), IGNORE, np.int32)
        labels[0, shown.columns[place]] = ids[place]
        scored = score_batch(scorer.model, Batch(input_ids=np.array([row], np.int32), labels=labels))
        found.append(float(scored.log_probabilities[0]))
    return found


@pytest.mark.parametrize("method", ["pseudo", "pseudo_word"])
def test_a_masked_model_weighs_each_token_with_it_alone_or_its_word_hidden(store, method):
    model, built, texts = opened("masked", store)
    scorer = request_scorer(model, built, texts, method, batch_size=7)
    asked = [*requests(seed=2, count=4), Request("", "Banon unbelievably")]
    for request, score in zip(asked, scorer.score(asked), strict=True):
        before, ids, _ = scorer.split(request.context, request.continuation)
        expected = hidden_one_by_one(scorer, before, ids, by_word=method == "pseudo_word")
        assert score.log_likelihood == pytest.approx(sum(expected), abs=2e-4)


def test_hiding_a_words_rest_changes_words_of_several_tokens_alone(store):
    model, built, texts = opened("masked", store)
    whole, pieces = texts.encode(f" {WORDS[3]}"), texts.encode(" zzz")
    assert (len(whole), len(pieces) > 1) == (1, True)
    plain, by_word = (request_scorer(model, built, texts, method) for method in ("pseudo", "pseudo_word"))
    asked = [Request(WORDS[0], f" {WORDS[3]}"), Request(WORDS[0], " zzz")]
    (a, b), (c, d) = plain.score(asked), by_word.score(asked)
    assert a.log_likelihood == pytest.approx(c.log_likelihood, abs=1e-6)
    assert abs(b.log_likelihood - d.log_likelihood) > 1e-3


def test_of_two_sentences_a_masked_model_counts_the_tokens_that_both_have(store):
    model, built, texts = opened("masked", store)
    scorer = request_scorer(model, built, texts)
    one, other = (f"{WORDS[0]} {WORDS[1]} {word} {WORDS[2]}" for word in (WORDS[7], WORDS[8]))
    (score,) = scorer.score([Request("", one, contrast=other)])
    ids, others = texts.encode(one), texts.encode(other)
    shared = [place for place, (a, b) in enumerate(zip(ids, others, strict=True)) if a == b]
    each = hidden_one_by_one(scorer, (), ids, by_word=False)
    assert len(shared) == len(ids) - 1
    assert score.num_tokens == len(shared)
    assert score.log_likelihood == pytest.approx(sum(each[place] for place in shared), abs=1e-4)


@pytest.mark.parametrize("objective", ["replaced_token", "permutation", "masked"])
def test_by_cloze_a_weight_is_the_score_of_the_continuation_in_a_blank(store, objective):
    model, built, texts = opened(objective, store)
    scorer = request_scorer(model, built, texts, "cloze")
    asked = requests(seed=3, count=4)
    for request, score in zip(asked, scorer.score(asked), strict=True):
        before, ids, _ = scorer.split(request.context, request.continuation)
        spaced = bool(texts.begins_word[ids[0]]) if before else False
        (expected,) = scorer.scorer.log_likelihoods(
            [Blank(before, (), num_tokens=len(ids), starts_word=spaced)], [[ids]]
        )
        assert score.log_likelihood == pytest.approx(float(expected[0]), abs=1e-4)


def test_ids_that_cannot_come_take_no_probability(store):
    model, built, texts = opened("causal", store)
    rows = store.vocabulary.size - 50
    ids = [40, 41, 42]
    all_of_them = request_scorer(model, built, texts).score_ids([((39,), tuple(ids))], [range(3)])
    model.trained_vocab_size = rows
    fewer = request_scorer(model, built, texts).score_ids([((39,), tuple(ids))], [range(3)])
    batch = Batch(input_ids=np.array([[store.vocabulary.bos, 39, *ids[:-1]]], np.int32), attention="causal")
    with torch.no_grad():
        states = model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD[0, 1:]
        logits = model.logits(states)
    assert (logits[:, rows:] == float("-inf")).all()
    logits = logits[:, :rows].log_softmax(dim=1)
    assert fewer[0].log_likelihood == pytest.approx(float(logits[range(3), ids].sum()), abs=1e-4)
    assert fewer[0].log_likelihood > all_of_them[0].log_likelihood


def test_a_text_begins_with_what_a_published_tokenizer_adds(store):
    model, built, texts = opened("causal", store)
    assert request_scorer(model, built, texts).prompt((50, 51)).context == [store.vocabulary.bos, 50, 51]
    template = TextTemplate.of_tokens([], [], [store.vocabulary.eos])
    published = TokenTexts(texts.tokenizer, replace(texts.vocabulary, template=template))
    bare = request_scorer(model, built, published)
    assert bare.prompt((50, 51)).context == [50, 51]
    assert bare.prompt(()).context == [store.vocabulary.bos]
    assert built.decoder_prompt(published.vocabulary, "decoder", (50, 51)).context == [50, 51, store.vocabulary.eos]


def test_a_text_that_is_too_long_loses_its_beginning(store):
    model, built, texts = opened("causal", store)
    scorer = request_scorer(model, built, texts)
    scorer.max_length = 8
    long, ids = tuple(range(100, 120)), (130, 131, 132)
    (score,) = scorer.score_ids([(long, ids)], [range(3)])
    (expected,) = request_scorer(model, built, texts).score_ids([(long[-5:], ids)], [range(3)])
    assert scorer.num_cropped == 1
    assert score.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-5)


@pytest.mark.parametrize("objective", ["causal", "masked", "span_corruption", "prefix"])
def test_a_continuation_that_is_too_long_is_refused(store, objective):
    model, built, texts = opened(objective, store)
    scorer = request_scorer(model, built, texts)
    scorer.max_length = 8
    with pytest.raises(UserError, match="A continuation takes"):
        scorer.score_ids([((100,), tuple(range(100, 120)))], [range(20)])


def test_a_space_between_context_and_continuation_belongs_to_the_continuation(store):
    model, built, texts = opened("causal", store)
    scorer = request_scorer(model, built, texts)
    before, after = WORDS[0], WORDS[1]
    assert scorer.split(before + " ", after) == scorer.split(before, " " + after)
    assert scorer.split(before, " " + after) == (tuple(texts.encode(before)), tuple(texts.encode(" " + after)), ())


def test_methods_that_a_model_does_not_know_are_refused(store):
    masked = opened("masked", store)
    with pytest.raises(UserError, match="does not continue texts"):
        request_scorer(*masked, "continuation")
    with pytest.raises(UserError, match="does not guess hidden tokens"):
        request_scorer(*opened("causal", store), "pseudo")
    with pytest.raises(UserError, match="no scoring 'guess'"):
        request_scorer(*masked, "guess")


def test_a_continuation_without_a_space_before_it_has_the_difference_of_the_texts_likelihoods(store):
    """log p(continuation | context) = log p(both) - log p(context), also where one token spans the join."""
    model, built, texts = opened("causal", store)
    scorer = request_scorer(model, built, texts)
    rng, asked = np.random.default_rng(0), []
    for text in documents(60, seed=3):
        cut = int(rng.integers(3, min(60, len(text) - 4)))
        asked.append(Request(text[:cut], text[cut : cut + int(rng.integers(1, 20))]))
    spanned = 0
    for request, score in zip(asked, scorer.score(asked), strict=True):
        before, ids, end = scorer.split(request.context, request.continuation)
        whole = tuple(texts.encode(request.context.rstrip()))
        assert (*before, *end) == whole
        both = texts.encode(request.context + request.continuation)
        assert [*before, *ids] == both
        spanned += bool(end)
        start = scorer.prompt(())
        expected = alone(model, start, both)[0] - alone(model, start, list(whole))[0]
        assert score.log_likelihood == pytest.approx(expected, abs=5e-4)
    assert spanned > 10
