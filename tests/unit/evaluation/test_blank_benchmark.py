"""The common benchmark: a function of store and seed; a perfect model gets all, a blind one gets chance."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from small_corpus import WORDS, bigram_scorer, random_scorer, write_store

from pretextlm.data.seeded_sample import sample_documents
from pretextlm.evaluation import phrases
from pretextlm.evaluation.blank_benchmark import (
    DISTRACTORS,
    EDGE_WORDS,
    LEFT_TOKENS,
    RIGHT_TOKENS,
    answer_questions,
    blank_metrics,
    blank_samples,
    make_questions,
    text_with_blank,
)
from pretextlm.evaluation.phrases import count_phrases, is_plain
from pretextlm.scoring import log_probabilities
from pretextlm.scoring.token_texts import TokenTexts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def texts(store):
    return TokenTexts(store.tokenizer, store.vocabulary)


@pytest.fixture(scope="module")
def questions(store, texts):
    return make_questions(store, texts, 100, seed=1)


def test_the_same_store_and_seed_give_the_same_blanks(store, texts, questions):
    assert make_questions(store, texts, 100, seed=1) == questions
    assert make_questions(store, texts, 40, seed=1) == questions[:40]
    assert make_questions(store, texts, 100, seed=2) != questions
    assert len(questions) == 100
    assert len({(q.blank.left, q.answer) for q in questions}) == 100


def test_a_blank_hides_words_of_a_held_out_sentence_with_text_on_both_sides(store, texts, questions):
    tokens = store.validation.tokens.astype(int).tolist()
    whole = ",".join(map(str, tokens))
    for question in questions:
        blank = question.blank
        assert ",".join(map(str, [*blank.left, *question.answer, *blank.right])) in whole
        assert len(blank.left) <= LEFT_TOKENS
        assert len(blank.right) <= RIGHT_TOKENS
        assert blank.starts_word
        sentence_before = texts.decode(blank.left).rpartition(".")[2].split()
        assert len(sentence_before) >= EDGE_WORDS
        assert not texts.decode(question.answer).strip().startswith(".")
        assert set(texts.decode(question.answer).split()) <= set(WORDS)


def test_blanks_are_in_plain_text_or_within_one_part_of_a_pair(pair_store, texts, questions, tmp_path):
    assert make_questions(pair_store, texts, 100, seed=1) == questions
    only_pairs = write_store(tmp_path / "store", with_pairs=True, with_plain=False)
    split = only_pairs.validation
    borders = [*split.sentences.tolist(), split.num_tokens]
    parts = {tuple(split.tokens[a:b].tolist()) for a, b in pairwise(borders)}
    found = make_questions(only_pairs, texts, 15, seed=1)
    assert len(found) == 15
    for question in found:
        blank = question.blank
        assert (*blank.left, *question.answer, *blank.right) in parts
        assert blank.starts_document
        assert blank.ends_document


def test_choices_are_different_phrases_of_one_length_in_tokens_and_words(texts, questions):
    for question in questions:
        shown_choices = [texts.decode(choice).strip().casefold() for choice in question.candidates]
        assert len(set(shown_choices)) == DISTRACTORS + 1
        assert {len(choice) for choice in question.candidates} == {len(question.answer)}
        assert len({len(text.split()) for text in shown_choices}) == 1


def test_some_blanks_hide_phrases_and_the_right_choice_stands_anywhere(texts, questions):
    words = [len(texts.decode(question.answer).split()) for question in questions]
    assert 5 <= sum(count > 1 for count in words) <= 40
    assert {question.answer_index for question in questions} == set(range(DISTRACTORS + 1))


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


def test_phrases_of_a_large_text_are_those_of_documents_from_all_of_it(store, texts, monkeypatch):
    monkeypatch.setattr(phrases, "SAMPLE_TOKENS", store.train.num_tokens // 4)
    found = count_phrases(store.train, texts, 1)
    monkeypatch.undo()
    sample = sample_documents(store.train, 0, store.train.num_tokens // 4, seed=0)
    first = store.train.first_documents(store.train.num_documents // 4)
    expected, beginning = (count_phrases(split, texts, 1) for split in (sample, first))
    assert [table.texts for table in found] == [table.texts for table in expected]
    assert [table.texts for table in found] != [table.texts for table in beginning]


def test_a_model_that_knows_the_next_word_gets_everything_right(store, texts, questions):
    metrics = blank_metrics(answer_questions(bigram_scorer(store), questions), texts)
    assert metrics["blank_choice_accuracy"].value == 1.0
    assert metrics["blank_exact_match"].value > 0.97
    assert metrics["blank_log_likelihood"].value > -1e-3
    assert {metric.n for metric in metrics.values()} == {100}


def test_a_blind_model_gets_chance(store, texts):
    many = make_questions(store, texts, 1000, seed=1)
    metrics = blank_metrics(answer_questions(bigram_scorer(store, uniform=True), many), texts)
    accuracy = metrics["blank_choice_accuracy"]
    assert metrics["blank_log_likelihood"].value == pytest.approx(-np.log(10), abs=1e-4)
    assert metrics["blank_exact_match"].value < 0.1
    rights = np.bincount([question.answer_index for question in many], minlength=10)
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
def test_results_do_not_depend_on_the_size_of_a_batch(store, questions, objective, monkeypatch):
    scorer = random_scorer(objective, store)
    whole = answer_questions(scorer, questions[:12])
    monkeypatch.setattr(log_probabilities, "TOKENS_PER_BATCH", 90)
    parts = answer_questions(scorer, questions[:12])
    assert [a.tokens for a in parts.written] == [a.tokens for a in whole.written]
    assert np.allclose(np.concatenate(parts.scores), np.concatenate(whole.scores), atol=5e-4)


def test_samples_show_the_text_the_answer_and_the_choices(store, texts, questions):
    results = answer_questions(bigram_scorer(store), questions[:20])
    for sample, question in zip(blank_samples(results, texts), questions, strict=False):
        assert sample["kind"] == "blank"
        assert sample["text"] == text_with_blank(question, texts)
        assert sample["text"].count("____") == 1
        restored = sample["text"].replace("____", sample["expected"])
        assert texts.decode([*question.blank.left, *question.answer, *question.blank.right]).strip() == restored
        assert sample["correct"] == (sample["answer"] == sample["expected"])
        assert sample["chosen"] == sample["choices"][int(np.argmax(sample["scores"]))]


def test_the_answer_is_no_less_often_the_most_frequent_choice_than_chance(store, texts):
    counts = {
        tuple(row): int(count)
        for words in (1, 2, 3)
        for table in count_phrases(store.train, texts, words)
        for row, count in zip(table.tokens.tolist(), table.counts, strict=True)
    }
    many = make_questions(store, texts, 1000, seed=1)
    shares = []
    for question in many:
        frequency = np.array([counts[choice] for choice in question.candidates])
        best = frequency == frequency.max()
        shares.append(best[question.answer_index] / best.sum())
    assert len(many) > 100
    assert np.mean(shares) > 0.1 - 3 * np.std(shares) / len(many) ** 0.5
