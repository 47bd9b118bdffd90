"""Sentence boundaries of English and Korean."""

from __future__ import annotations

import gzip
import json
from itertools import islice

import pytest
from tests.builders import FIXTURES, published

from pretextlm.data.sentences import sentence_starts


def sentences(text):
    starts = sentence_starts(text).tolist()
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    "expected",
    [
        ["It rained.", "We stayed in!", "Why?", "Nobody knows…", "Perhaps."],
        ["Mr. Smith of the U.S. Navy met Dr. J. R. Jones at 3.14 p.m. on Jan. 5.", "They spoke."],
        ["“Come in.”", "He came in.", '"No!" she said.', "(Really.)", "Yes."],
        ["배는 떠났다.", "모두 만족했어요.", "정말요?", "네!"],
        ["“그는 갔다.”", "그리고 돌아왔다."],
        ["これは本です。", "そうですか？", "はい。"],
        ["He was born in 1948.", "Then came peace."],
        ["Prices rose 3.5 percent, e.g. for bread.", "Wages did not."],
    ],
)
def test_sentences_end_where_people_end_them(expected):
    assert sentences(" ".join(expected)) == expected


def test_a_blank_line_ends_a_sentence_and_a_single_line_end_does_not():
    assert sentences("A heading\n\nThe text goes\non here. It ends.") == [
        "A heading",
        "The text goes\non here.",
        "It ends.",
    ]


def test_a_list_number_does_not_end_a_sentence():
    assert sentences("1. Buy bread.\n2. Eat it.") == ["1. Buy bread.", "2. Eat it."]


@pytest.mark.parametrize("text", ["", "  \n ", "\n\n\n"])
def test_white_space_has_no_sentence(text):
    assert sentence_starts(text).tolist() == []


def check_articles(texts, low, high):
    """Sentences lose no character of the texts, and are of a length that people write."""
    found = [sentence for text in texts for sentence in sentences(text)]
    mean = sum(map(len, found)) / len(found)
    assert low < mean < high
    assert "".join("".join(s.split()) for s in found) == "".join("".join(t.split()) for t in texts)


@pytest.mark.parametrize(
    ("name", "count", "low", "high"), [("english", 63, 40, 80), ("korean", 49, 15, 35), ("chinese", 29, 8, 20)]
)
def test_sentences_of_articles(name, count, low, high):
    texts = [json.loads(line)["text"] for line in (FIXTURES / f"{name}.jsonl").read_text("utf-8").splitlines()]
    check_articles(texts, low, high)
    assert sum(len(sentences(text)) for text in texts) == count


@pytest.mark.parametrize(("name", "low", "high"), [("enwiki-part", 60, 200), ("kowiki-sample", 25, 110)])
def test_sentences_of_published_articles(name, low, high):
    with gzip.open(published(f"corpora/{name}/train.jsonl.gz"), "rt", encoding="utf-8") as lines:
        check_articles([json.loads(line)["text"] for line in islice(lines, 200)], low, high)
