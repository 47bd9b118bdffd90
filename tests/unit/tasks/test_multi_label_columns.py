"""Labels of a record in one column, also of a table, or in a column for each."""

from __future__ import annotations

import pytest

from pretextlm.data.records import read_records
from pretextlm.errors import UserError
from pretextlm.tasks.multi_label_classification import MultiLabelClassification


def labelled(task, file):
    records = read_records(str(file), task.columns())
    fitted = task.fit_labels(records)
    return fitted.labels, fitted.references(records)


@pytest.mark.parametrize(
    ("cells", "separator", "labels"),
    [
        ('"a,b"', ",", [["a", "b"]]),
        ('"[""a, or b"", ""c""]"', ",", [["a, or b", "c"]]),
        ('"a, or b|c"', "|", [["a, or b", "c"]]),
    ],
)
def test_labels_of_one_column_of_a_table(tmp_path, cells, separator, labels):
    file = tmp_path / "train.csv"
    file.write_text(f"text,label\nOne.,{cells}\nTwo.,\n")
    found = labelled(MultiLabelClassification(separator=separator), file)
    assert found == (tuple(sorted(labels[0])), [*labels, []])


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_a_column_for_each_label(tmp_path, name):
    file = tmp_path / name
    comma = "," if name.endswith("csv") else "\t"
    file.write_text(
        "\n".join(comma.join(row) for row in (["text", "toxic", "rude"], ["One.", "1", "0"], ["Two.", "TRUE", "1"]))
    )
    if name.endswith("jsonl"):
        file.write_text('{"text": "One.", "toxic": 1, "rude": false}\n{"text": "Two.", "toxic": true, "rude": 1}\n')
    task = MultiLabelClassification(indicators=("toxic", "rude"))
    assert labelled(task, file) == (("toxic", "rude"), [["toxic"], ["toxic", "rude"]])
    assert list(task.input_columns().values()) == ["text"]
    records = read_records(str(file), task.input_columns())
    assert task.model_copy(update={"labels": ("toxic", "rude")}).references(task.unlabelled(records)) == [[], []]


def test_a_column_for_a_label_holds_nothing_else(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("text,toxic\nOne.,2\n")
    with pytest.raises(UserError, match="line 2: the column 'toxic' is '2', neither 0 nor 1"):
        labelled(MultiLabelClassification(indicators=("toxic",)), file)
