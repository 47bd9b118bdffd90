"""The one ruler: blanks are a function of store and seed, a perfect model gets all, a blind one gets chance."""

from __future__ import annotations

import numpy as np
import pytest
from small_corpus import WORDS, bigram_filler, random_filler

from pretextlm.evaluation import scoring
from pretextlm.evaluation.blanks import (
    DISTRACTORS,
    EDGE_WORDS,
    LEFT_TOKENS,
    RIGHT_TOKENS,
    answer_blanks,
    blank_metrics,
    blank_samples,
    make_blanks,
    shown,
)
from pretextlm.evaluation.cloze import TokenTexts
from pretextlm.evaluation.phrases import count_phrases, is_plain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def texts(store):
    return TokenTexts(store.tokenizer, store.vocabulary)


@pytest.fixture(scope="module")
def blanks(store, texts):
    return make_blanks(store, texts, 100, seed=1)


def test_the_same_store_and_seed_give_the_same_blanks(store, texts, blanks):
    assert make_blanks(store, texts, 100, seed=1) == blanks
    assert make_blanks(store, texts, 40, seed=1) == blanks[:40]
    assert make_blanks(store, texts, 100, seed=2) != blanks
    assert len(blanks) == 100
    assert len({(b.cloze.left, b.answer) for b in blanks}) == 100


def test_a_blank_hides_words_of_a_held_out_sentence_with_text_on_both_sides(store, texts, blanks):
    tokens = store.validation.tokens.astype(int).tolist()
    whole = ",".join(map(str, tokens))
    for blank in blanks:
        cloze = blank.cloze
        assert ",".join(map(str, [*cloze.left, *blank.answer, *cloze.right])) in whole
        assert len(cloze.left) <= LEFT_TOKENS
        assert len(cloze.right) <= RIGHT_TOKENS
        assert cloze.new_word
        sentence_before = texts.decode(cloze.left).rpartition(".")[2].split()
        assert len(sentence_before) >= EDGE_WORDS
        assert not texts.decode(blank.answer).strip().startswith(".")
        assert set(texts.decode(blank.answer).split()) <= set(WORDS)


def test_choices_are_different_phrases_of_one_length_in_tokens_and_words(texts, blanks):
    for blank in blanks:
        shown_choices = [texts.decode(choice).strip().casefold() for choice in blank.choices]
        assert len(set(shown_choices)) == DISTRACTORS + 1
        assert {len(choice) for choice in blank.choices} == {len(blank.answer)}
        assert len({len(text.split()) for text in shown_choices}) == 1


def test_some_blanks_hide_phrases_and_the_right_choice_stands_anywhere(texts, blanks):
    words = [len(texts.decode(blank.answer).split()) for blank in blanks]
    assert 5 <= sum(count > 1 for count in words) <= 40
    assert {blank.right for blank in blanks} == set(range(DISTRACTORS + 1))


def test_phrases_are_counted_as_one_by_one(store, texts):
    split = store.train
    starts = [*np.flatnonzero(split.word_starts(np.arange(split.num_tokens))).tolist(), split.num_tokens]
    tokens = split.tokens.astype(int).tolist()
    sentences = set(split.sentences.astype(int).tolist())
    counted: dict[tuple[int, ...], int] = {}
    for i in range(len(starts) - 2):
        inside = set(range(starts[i] + 1, starts[i + 2])) & sentences
        if not inside:
            phrase = tuple(tokens[starts[i] : starts[i + 2]])
            counted[phrase] = counted.get(phrase, 0) + 1
    expected = {
        phrase: n
        for phrase, n in counted.items()
        if n >= 2 and len(phrase) <= 3 and is_plain(texts.decode(phrase).strip(), 2)
    }
    found = {
        tuple(row): int(n)
        for table in count_phrases(split, texts, 2)
        for row, n in zip(table.tokens.tolist(), table.counts, strict=True)
    }
    assert expected
    assert found == {p: n for p, n in expected.items() if p in found}
    assert set(expected) == set(found)


def test_a_model_that_knows_the_next_word_gets_everything_right(store, texts, blanks):
    metrics = blank_metrics(answer_blanks(bigram_filler(store), blanks), texts)
    assert metrics["blank_choice_accuracy"].value == 1.0
    assert metrics["blank_exact_match"].value > 0.97
    assert metrics["blank_log_likelihood"].value > -1e-3
    assert {metric.n for metric in metrics.values()} == {100}


def test_a_blind_model_gets_chance(store, texts):
    many = make_blanks(store, texts, 1000, seed=1)
    metrics = blank_metrics(answer_blanks(bigram_filler(store, uniform=True), many), texts)
    accuracy = metrics["blank_choice_accuracy"]
    assert metrics["blank_log_likelihood"].value == pytest.approx(-np.log(10), abs=1e-4)
    assert metrics["blank_exact_match"].value < 0.1
    rights = np.bincount([blank.right for blank in many], minlength=10)
    assert ((rights - len(many) / 10) ** 2 / (len(many) / 10)).sum() < 27.9  # χ² with 9 degrees of freedom, p = 0.001
    assert 0 <= accuracy.value <= 0.3


@pytest.mark.parametrize(
    "objective",
    [
        "causal",
        "prefix",
        "fill_in_middle",
        "masked",
        "replaced_token",
        "permutation",
        "span_corruption",
        "denoising",
        "masked_sequence",
    ],
)
def test_results_do_not_depend_on_the_size_of_a_batch(store, blanks, objective, monkeypatch):
    filler = random_filler(objective, store)
    whole = answer_blanks(filler, blanks[:12])
    monkeypatch.setattr(scoring, "TOKENS_AT_ONCE", 90)
    parts = answer_blanks(filler, blanks[:12])
    assert [a.tokens for a in parts.answers] == [a.tokens for a in whole.answers]
    assert np.allclose(np.concatenate(parts.scores), np.concatenate(whole.scores), atol=5e-4)


def test_samples_show_the_text_the_answer_and_the_choices(store, texts, blanks):
    results = answer_blanks(bigram_filler(store), blanks[:20])
    for sample, blank in zip(blank_samples(results, texts), blanks, strict=False):
        assert sample["kind"] == "blank"
        assert sample["text"] == shown(blank, texts)
        assert sample["text"].count("____") == 1
        restored = sample["text"].replace("____", sample["expected"])
        assert texts.decode([*blank.cloze.left, *blank.answer, *blank.cloze.right]).strip() == restored
        assert sample["correct"] == (sample["answer"] == sample["expected"])
        assert sample["chosen"] == sample["choices"][int(np.argmax(sample["scores"]))]


def test_the_answer_is_no_less_often_the_most_frequent_choice_than_chance(store, texts):
    counts = {
        tuple(row): int(count)
        for words in (1, 2, 3)
        for table in count_phrases(store.train, texts, words)
        for row, count in zip(table.tokens.tolist(), table.counts, strict=True)
    }
    many = make_blanks(store, texts, 1000, seed=1)
    shares = []
    for blank in many:
        frequency = np.array([counts[choice] for choice in blank.choices])
        best = frequency == frequency.max()
        shares.append(best[blank.right] / best.sum())
    assert len(many) > 100
    assert np.mean(shares) > 0.1 - 3 * np.std(shares) / len(many) ** 0.5
