"""The share of documents for validation is met as nearly as equal documents allow, and it is said where it is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builders import sentences

from pretextlm.data.prepare import groups_that_fit, prepare

OPTIONS = {"tokenizer": "character", "vocab_size": 300, "text_mode": "lines"}


def split(tmp_path, lines, share):
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n")
    store = prepare(tmp_path / "text.txt", tmp_path / "store", validation=share, **OPTIONS)
    return store.train.num_documents, store.validation.num_documents, store.manifest["notes"]


@pytest.mark.parametrize(("repeats", "others", "wanted"), [(540, 60, 12), (2400, 600, 60)])
def test_a_text_that_is_repeated_more_often_than_the_share_is_in_training(tmp_path, repeats, others, wanted):
    lines = ["hello"] * repeats + [f"{text} {number}" for number, text in enumerate(sentences(others))]
    train, validation, notes = split(tmp_path, lines, 0.02)
    assert (train, validation) == (repeats + others - wanted, wanted)
    assert notes == [
        f"{repeats:,} documents are equal, more than the {wanted:,} for validation: they are in the training split."
    ]


def test_a_share_that_equal_documents_do_not_allow_is_said(tmp_path):
    train, validation, notes = split(tmp_path, ["one"] * 50 + ["two"] * 50, 0.1)
    assert (train, validation) == (50, 50)
    assert notes == ["50 documents (50.0%) are for validation instead of 10: equal documents stay together."]


def test_a_share_that_is_met_is_not_spoken_of(tmp_path):
    lines = [f"{text} {number}" for number, text in enumerate(sentences(200))]
    assert split(tmp_path, lines, 0.1) == (180, 20, [])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=40), st.integers(1, 60))
def test_groups_are_taken_in_order_where_they_fit(sizes, room):
    expected, left = [], room
    for size in sizes:
        expected.append(size <= left)
        left -= size if size <= left else 0
    assert groups_that_fit(np.array(sizes), room).tolist() == expected
