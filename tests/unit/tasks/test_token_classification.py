"""Tags fall on the first tokens of words and characters, and come back from there, whatever the length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretextlm.batch import IGNORE
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import Records, read_records
from pretextlm.errors import UserError
from pretextlm.tasks.shared.word_splitting import word_spans
from pretextlm.tasks.token_classification import TokenClassification
from pretextlm.training.run_directory import Run

TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]
WORDS = ["river", "the", "an", "harbour", "x1", "우리", "말", "…", "A.B."]


def examples_of(task, start, file, length=24):
    run = Run.open(start)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    records = read_records(file, task.columns())
    return task.examples(records, encoder, run.recipe.model, length), encoder, records


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(TAGS)), min_size=1, max_size=40),
        min_size=1,
        max_size=6,
    )
)
def test_the_tags_of_words_come_back_from_the_labels_of_their_first_tokens(start, written, sentences):
    file = written([{"tokens": [w for w, _ in one], "tags": [t for _, t in one]} for one in sentences])
    task = TokenClassification(labels=tuple(TAGS))
    examples, encoder, records = examples_of(task, start, file)
    labelled = examples.token_labels[examples.token_labels != IGNORE]
    assert len(labelled) == sum(map(len, sentences))
    chances = np.eye(len(TAGS))[labelled]
    assert task.answers(chances, examples, encoder, records) == task.references(records)
    assert np.diff(examples.offsets).max() <= 24


def test_characters_are_tagged_by_the_token_that_begins_with_them_or_go_on(start, written):
    text, tags = "The river carries", ["O"] * 4 + ["B-x"] + ["I-x"] * 4 + ["O"] * 8
    file = written([{"tokens": list(text), "tags": tags}])
    task = TokenClassification(labels=tuple(TAGS), units="characters")
    examples, encoder, records = examples_of(task, start, file, length=64)
    labelled = examples.token_labels[examples.token_labels != IGNORE]
    assert task.answers(np.eye(len(TAGS))[labelled], examples, encoder, records) == [tags]


def test_tags_and_tokens_of_different_number_and_unknown_tags_are_refused_by_row(start, written):
    good = {"tokens": ["a", "b"], "tags": ["O", "B-x"]}
    for bad, told in (({"tokens": ["a"], "tags": []}, "line 2"), ({"tokens": ["a"], "tags": ["B-z"]}, "'B-z'")):
        with pytest.raises(UserError, match=told):
            examples_of(TokenClassification(labels=tuple(TAGS)), start, written([good, bad]))
    with pytest.raises(UserError, match=r"line 2: there are 1 tokens and 2 tags"):
        examples_of(
            TokenClassification(labels=tuple(TAGS)), start, written([good, {"tokens": ["a"], "tags": ["O", "O"]}])
        )


def test_the_tags_are_those_of_the_training_records_with_outside_first(start, written):
    records = read_records(written([{"tokens": ["a", "b"], "tags": ["B-x", "O"]}]), TokenClassification().columns())
    assert TokenClassification().fit_labels(records).labels == ("O", "B-x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I saw Paris. Then (at 10:30) AT&T's", "I|saw|Paris|.|Then|(|at|10:30|)|AT&T|'s"),
        ('U.S.-based, "don\'t"... 1,000.5 km', 'U.S.|-|based|,|"|don\'t|"|...|1,000.5|km'),
        ("https://a.b/c, @joe me@a.org!", "https://a.b/c|,|@joe|me@a.org|!"),
        ("서울에서 김철수(30)는", "서울에서|김철수|(|30|)|는"),
        ("北京。हिन्दी 🙂", "北|京|。|हिन्दी|🙂"),
        (" \n ", ""),
    ],
)
def test_words_of_a_text_are_split_as_in_conll_data(text, words):
    assert "|".join(text[begin:end] for begin, end in word_spans(text)) == words


@pytest.mark.parametrize("units", ["words", "characters"])
def test_a_text_has_the_tags_of_its_list_of_units_with_places_in_the_text(start, units):
    task = TokenClassification(labels=tuple(TAGS), units=units)
    text = "\nriver  the harbour.\n"
    tokens = [text[a:b] for a, b in word_spans(text)] if units == "words" else list(text)
    encoder = OffsetTokenizer(Run.open(start).tokenizer)
    found = []
    for value in (text, tokens):
        records = task.unlabelled(Records({"tokens": [value, value]}, {}, np.array([1, 2]), "given", "", 0))
        examples = task.examples(records, encoder, Run.open(start).recipe.model, 64)
        count = int((examples.token_labels != IGNORE).sum())
        tags = np.arange(count // 2) % len(TAGS)
        found.append(task.explain(np.eye(len(TAGS))[np.tile(tags, 2)], examples, encoder, records))
    assert [one["tokens"] for one in found[0]] == [one["tokens"] for one in found[1]] == [tokens] * 2
    assert [one["text"][a:b] for one in found[0] for a, b in one["offsets"]] == tokens * 2
    assert found[0][0]["text"] == text
    assert found[0][0]["answer"] == found[0][1]["answer"]
    if units == "words":
        assert [one["answer"] for one in found[0]] == [one["answer"] for one in found[1]]
