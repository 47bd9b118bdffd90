"""Stretches of texts stand between marks: by characters, by words, in one another, and never outside of the text."""

from __future__ import annotations

import csv

import pytest

from pretextlm.data.records import read_records
from pretextlm.errors import UserError
from pretextlm.tasks.multiple_choice import MultipleChoice
from pretextlm.tasks.shared.marks import Mark
from pretextlm.tasks.text_classification import TextClassification

BANK = {"one": "By the bank.", "two": "A bank in a bank", "a": 7, "b": 11, "c": 2, "d": 5, "label": 0}


def texts(task, file):
    records = read_records(file, task.columns())
    return [task.texts_of(records, role)[0] for role in task.templates()]


def task(*marks, text="one", text_pair="", **options):
    return TextClassification.parse({"text": text, "text_pair": text_pair, "marks": list(marks), **options})


def test_each_text_has_its_own_marks(written):
    first, second = (
        {"start": "a", "end": "b"},
        {"of": "text_pair", "start": "c", "last": "d", "before": "<", "behind": ">"},
    )
    found = texts(task(first, second, text_pair="two"), written([BANK]))
    assert found == ["By the [bank].", "A <bank> in a bank"]


def test_words_are_counted_and_keep_the_marks_of_their_sentence(written):
    record = {
        "text": "  Mark told  Pete, he lied.",
        "from": 2,
        "what": "Pete,",
        "then": 3,
        "that": "he lied",
        "label": 0,
    }
    marks = {"start": "from", "words": "what"}, {"start": "then", "words": "that", "before": "_", "behind": "_"}
    assert texts(task(*marks, text="text"), written([record])) == ["  Mark told  [Pete,] _he lied._"]


def test_stretches_may_touch_and_lie_in_one_another(written):
    record = {"text": "abcd", "zero": 0, "two": 2, "four": 4, "label": 0}
    outer = {"start": "zero", "end": "four", "before": "(", "behind": ")"}
    inner, rest = {"start": "zero", "end": "two"}, {"start": "two", "end": "four", "before": "<", "behind": ">"}
    assert texts(task(rest, inner, outer, text="text"), written([record])) == ["([ab]<cd>)"]


@pytest.mark.parametrize(
    ("mark", "places"),
    [({"end": "b"}, (7, 13)), ({"end": "b"}, (7, 7)), ({"last": "b"}, (-1, 3)), ({"end": "b"}, (0.5, 2))],
)
def test_a_stretch_that_is_not_in_the_text_is_refused_by_row(written, mark, places):
    file = written([BANK, {**BANK, "a": places[0], "b": places[1]}])
    with pytest.raises(UserError, match=r"line 2: the span .* of 'a' is not in the text"):
        texts(task({"start": "a", **mark}), file)


def test_words_that_the_text_has_not_are_refused_by_row(written):
    with pytest.raises(UserError, match="line 1: the span"):
        texts(task({"start": "c", "words": "two"}), written([BANK]))


def test_a_mark_ends_in_one_way_and_is_of_a_column_as_it_is():
    with pytest.raises(UserError, match="a mark needs one of end, last and words"):
        task({"start": "a"})
    with pytest.raises(UserError, match="a mark needs one of end, last and words"):
        task({"start": "a", "end": "b", "last": "b"})
    with pytest.raises(UserError, match="a mark is of 'text', which is not a column as it is"):
        task({"start": "a", "end": "b"}, text="So: {one}")
    with pytest.raises(UserError, match="a mark is of 'text_pair', which is not a column as it is"):
        task({"of": "text_pair", "start": "a", "end": "b"})
    with pytest.raises(UserError, match="a mark is of 'text', which is not a column as it is"):
        task({"start": "a", "end": "b"}, wording={"one": {"yes": "no"}})


def test_choices_are_read_with_the_marks_of_their_text(written):
    chosen = MultipleChoice(text="one", marks=(Mark(start="a", end="b"),), label_names=("0", "1"))
    record = {**BANK, "choices": ["a river", "money"]}
    assert chosen.texts_of(read_records(written([record]), chosen.columns()), "text") == ["By the [bank]."]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize("rows_end", ["\n", "\r\n"])
def test_characters_are_counted_alike_in_csv_and_json_lines(end, rows_end, written, tmp_path):
    text = f"Note:{end}He sat by the{end}bank of the river."
    record = {"text": text, "start": text.index("bank"), "end": text.index("bank") + 4, "label": "a"}
    file = tmp_path / "marked.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(record), lineterminator=rows_end)
        writer.writeheader()
        writer.writerow(record)
    task = TextClassification(text="text", label="label", marks=({"start": "start", "end": "end"},))
    for path in (written([record]), str(file)):
        (marked,) = task.texts_of(read_records(path, task.columns()), "text")
        assert marked == text.replace("bank", "[bank]")
