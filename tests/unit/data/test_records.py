"""Labelled examples come out of every format alike, and a bad row is named before anything is trained on it."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json

import pytest
from tests.builders import FIXTURES, published

from pretextlm.data import records as module
from pretextlm.data.records import read_records
from pretextlm.errors import UserError

ROWS = [
    {"sentence": "A fine film.", "label": 1, "score": 4.5},
    {"sentence": '두 번째, "인용"', "label": 0, "score": 0.0},
    {"sentence": "  🙂 naïve\tone", "label": 1, "score": -1e-3},
]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows, tabs=False):
    if tabs:
        lines = ["\t".join(rows[0]), *("\t".join(str(value) for value in row.values()) for row in rows)]
        return "\n".join(lines).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def write(path, data):
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pytest.importorskip("zstandard").ZstdCompressor().compress(data)
    path.write_bytes(data)
    return path


COLUMNS = {"text": "sentence", "label": "label", "score": "score"}


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_typed_formats_give_the_values_as_they_are(tmp_path, name):
    data = parquet(ROWS) if name.endswith("parquet") else jsonl(ROWS)
    path = write(tmp_path / name, data)
    records = read_records(str(path), COLUMNS)
    assert records.columns == {ours: [row[theirs] for row in ROWS] for ours, theirs in COLUMNS.items()}
    assert records.texts("text") == [row["sentence"] for row in ROWS]
    assert records.labels("label") == [1, 0, 1]
    assert records.numbers("score").tolist() == [4.5, 0.0, -1e-3]
    assert records.rows.tolist() == [1, 2, 3]
    assert (records.sha256, records.bytes) == (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.zst"])
def test_of_a_table_of_text_numbers_are_read_and_labels_stay_texts(tmp_path, name):
    rows = [{**row, "sentence": row["sentence"].replace("\t", " ")} for row in ROWS]
    records = read_records(str(write(tmp_path / name, table(rows, ".tsv" in name))), COLUMNS)
    assert records.texts("text") == [row["sentence"] for row in rows]
    assert records.labels("label") == ["1", "0", "1"]
    assert records.numbers("score").tolist() == [4.5, 0.0, -1e-3]
    assert records.rows.tolist() == [2, 3, 4]  # the header is line 1


def test_the_row_of_a_record_is_the_line_on_which_it_begins(tmp_path):
    path = write(tmp_path / "a.csv", b'text,label\n"two\nlines",x\n\nlast,y\n')
    assert read_records(str(path), {"text": "text"}).rows.tolist() == [2, 5]
    path = write(tmp_path / "a.jsonl", b'{"text": "a"}\n\n\n{"text": "b"}\n')
    assert read_records(str(path), {"text": "text"}).rows.tolist() == [1, 4]


def test_some_records_keep_their_rows_and_a_fault_names_them(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl(ROWS))
    some = read_records(str(path), COLUMNS).take([2, 0])
    assert len(some) == 2
    assert some.rows.tolist() == [3, 1]
    assert some.texts("text") == [ROWS[2]["sentence"], ROWS[0]["sentence"]]
    error = some.fault(0, "the span is outside.", "Correct it.")
    assert (error.message, error.hint) == (f"{path}, line 3: the span is outside.", "Correct it.")
    path = write(tmp_path / "a.parquet", parquet(ROWS))
    assert read_records(str(path), COLUMNS).where(1) == f"{path}, row 2"


CONLL = """# id 1
EU NNP B-ORG
rejects VBZ O

-DOCSTART- -X- O

German JJ B-MISC
call NN O
. . O
"""
KLUE = "## 주석 : ##\n## id\t<박:PS>씨는\n박\tB-PS\n씨\tO\n \tO\n#\tO\n\n## id-2\t<두:QT>\n두\tB-QT\n \tO\n\n\n"


def test_conll_files_give_a_sentence_a_record_with_columns_by_number(tmp_path):
    path = write(tmp_path / "a.conll.gz", CONLL.encode())
    records = read_records(str(path), {"words": "1", "tags": "3"})
    assert records.words("words") == [["EU", "rejects"], ["German", "call", "."]]
    assert records.words("tags") == [["B-ORG", "O"], ["B-MISC", "O", "O"]]
    assert records.rows.tolist() == [2, 7]
    assert records.where(1) == f"{path}, line 7"


def test_conll_columns_take_the_names_they_are_given_and_a_token_may_be_a_space(tmp_path):
    path = write(tmp_path / "a.tsv", KLUE.encode())
    records = read_records(f"{path}?conll=char,tag", {"words": "char", "tags": "tag"})
    assert records.words("words") == [["박", "씨", " ", "#"], ["두", " "]]
    assert records.words("tags") == [["B-PS", "O", "O", "O"], ["B-QT", "O"]]
    assert read_records(f"{path}?conll", {"words": "1"}).columns["words"] == records.columns["words"]
    assert records.where(1) == f"{path}, line 9"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a O\nb\n", "line 2: 1 columns, not 2"),
        ("a\tO\n\nb\t\n", "line 3: column 2 is empty"),
        ("a NN O\n\n# NN O\nb NN O\n", "line 3: a comment, or a token '#'"),
        ("", "has no rows"),
        ("\n\n# only a comment\n", "has no rows"),
    ],
)
def test_faults_of_conll_files_are_named_by_line(tmp_path, text, message):
    path = write(tmp_path / "a.conll", text.encode())
    with pytest.raises(UserError, match=message):
        read_records(str(path), {"words": "1"})


def test_fields_within_fields_are_named_with_dots(tmp_path):
    rows = [
        {"answers": {"text": ["a", "b"], "answer_start": [1, 2]}, "a.b": "literal"},
        {"answers": {"text": [], "answer_start": []}, "a.b": "name"},
    ]
    wanted = {"texts": "answers.text", "starts": "answers.answer_start"}
    for name, data in (("a.jsonl", jsonl(rows)), ("a.parquet", parquet(rows))):
        records = read_records(str(write(tmp_path / name, data)), {**wanted, "other": "a.b"})
        assert records.text_lists("texts") == [["a", "b"], []]
        assert records.integer_lists("starts") == [[1, 2], []]
        assert records.texts("other") == ["literal", "name"]
    listed = [{"answers": [{"text": "a", "answer_start": 3}, {"text": "b", "answer_start": 4}]}, {"answers": []}]
    records = read_records(str(write(tmp_path / "b.jsonl", jsonl(listed))), wanted)
    assert records.text_lists("texts") == [["a", "b"], []]
    assert records.integer_lists("starts") == [[3, 4], []]


def test_a_single_answer_is_a_list_of_one(tmp_path):
    path = write(tmp_path / "a.csv", b"answer\nParis\n")
    assert read_records(str(path), {"answers": "answer"}).text_lists("answers") == [["Paris"]]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_a_column_that_is_not_there_names_the_nearest_one(tmp_path, name):
    row = {"sentence": "x", "label": "y"}
    data = {"jsonl": jsonl, "csv": table, "tsv": lambda r: table(r, tabs=True), "parquet": parquet}[name[2:]]([row])
    path = write(tmp_path / name, data)
    with pytest.raises(UserError, match=r"no column 'sentense'.*\n*Did you mean 'sentence'\?"):
        read_records(str(path), {"text": "sentense"})
    with pytest.raises(UserError, match="Known: label, sentence"):
        read_records(str(path), {"text": "words"})


def test_a_row_without_the_column_is_named(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "x", "label": 1}\n{"text": "y"}\n')
    with pytest.raises(UserError, match="line 2: no column 'label'"):
        read_records(str(path), {"label": "label"})


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"", "has no rows"),
        ("a.jsonl", b"\n\n", "has no rows"),
        ("a.csv", b"text,label\n", "has no rows"),
        ("a.jsonl", b'{"text": "x"}\n["x"]\n', "line 2: list, not an object"),
        ("a.jsonl", b'{"text": "x"}\n\n{"text"\n', "line 3: not JSON"),
        ("a.jsonl", b'{"text": "x", "text": "y"}\n', "line 1: not JSON .a key occurs twice"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', "line 2: byte 11 is not UTF-8"),
        ("a.csv", b"text,label\na,b\na,b,c\n", "line 3: 3 fields, the header has 2"),
        ("a.csv", b'text,label\na,"b\n', "line 2: "),
        ("a.csv", b"text,text\na,b\n", "2 columns 'text'"),
        ("a.parquet", b"PAR1 not", "damaged or not Parquet"),
        ("a.txt", b"words", "has no columns"),
        ("a.xml", b"<a/>", "has no columns"),
        ("a.json", b'{"text": ["x"], "label": 3', "not JSON"),
        ("a.json", b'[{"text": "x"}, 3]', "record 2: int, not an object"),
        ("a.jsonl.gz", b"", "has no rows"),
    ],
)
def test_files_that_are_empty_or_damaged_are_refused_by_row(tmp_path, name, data, message):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    path = write(tmp_path / name, data)
    with pytest.raises(UserError, match=message):
        read_records(str(path), {"text": "text"})


def test_a_file_that_is_cut_short_or_not_there_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(ROWS))[:-12])
    with pytest.raises(UserError, match="damaged or cut short"):
        read_records(str(path), COLUMNS)
    for name in ("none.jsonl", "none.parquet", "none.tsv?conll=a,b"):
        with pytest.raises(UserError, match="does not exist"):
            read_records(str(tmp_path / name), {"text": "a"})
    with pytest.raises(UserError, match="is a directory"):
        read_records(str(tmp_path), COLUMNS)
    for options in ("conll=a,a", "conll=a,"):
        with pytest.raises(UserError, match="does not name its columns"):
            read_records(f"{path}?{options}", {"text": "a"})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("texts", ["a", None], "line 2: the column 'x' is null, not a text"),
        ("texts", ["a", 3], "line 2: the column 'x' is 3, not a text"),
        ("texts", ["a", "b", " \t"], "line 3: the column 'x' is empty"),
        ("texts", ["a\0"], "line 1: the column 'x' holds a NUL"),
        ("texts", ["\ud83d"], "line 1: the column 'x' holds half a character"),
        ("words", [["a"], "b c"], "line 2: the column 'x' is \"b c\", not a list of words"),
        ("words", [["a"], []], "line 2: the column 'x' has no word"),
        ("words", [["a", ""]], "line 1: the column 'x' is \"\", where a word should be"),
        ("words", [["a", 1]], "line 1: the column 'x' is 1, where a word should be"),
        ("numbers", [1, "two"], "line 2: the column 'x' is \"two\", not a number"),
        ("numbers", [1, None], "line 2: the column 'x' is null, not a number"),
        ("numbers", [1, True], "line 2: the column 'x' is true, not a number"),
        ("numbers", [1, "1_000"], "line 2: the column 'x' is \"1_000\", not a number"),
        ("numbers", [1, "nan"], "line 2: the column 'x' is \"nan\", not a number"),
        ("numbers", [1, float("nan")], "line 2: the column 'x' is NaN, not a finite number"),
        ("numbers", [1, "1e999"], "line 2: the column 'x' is \"1e999\", not a finite number"),
        ("numbers", [10**400], "line 1: .* not a finite number"),
        ("labels", ["a", None], "line 2: the column 'x' is null, not a label"),
        ("labels", [1, 1.5], "line 2: the column 'x' is 1.5, not a label"),
        ("labels", ["a", ""], "line 2: the column 'x' has no label"),
        ("labels", [1, "1"], "line 2: the column 'x' is \"1\", but .*line 1 has 1, of another kind"),
        ("labels", [1, True], "line 2: the column 'x' is true, but .*line 1 has 1, of another kind"),
        ("text_lists", [["a"], [1]], "line 2: the column 'x' is 1, not a list of texts"),
        ("text_lists", [["a"], None], "line 2: the column 'x' is null, not a list of texts"),
        ("integer_lists", [[1], [True]], "line 2: the column 'x' is true, not a list of whole numbers"),
        ("integer_lists", [[1], ["1"]], "line 2: the column 'x' is \"1\", not a list of whole numbers"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_row(tmp_path, kind, values, message):
    text = "".join(json.dumps({"x": value}) + "\n" for value in values)
    records = read_records(str(write(tmp_path / "a.jsonl", text.encode())), {"ours": "x"})
    with pytest.raises(UserError, match=message):
        getattr(records, kind)("ours")


def test_what_may_be_empty_is_asked_for(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl([{"x": ""}, {"x": "y"}]))
    assert read_records(str(path), {"x": "x"}).texts("x", empty=True) == ["", "y"]


def test_true_and_false_are_labels(tmp_path):
    path = write(tmp_path / "a.jsonl", jsonl([{"x": True}, {"x": False}]))
    assert [label is True for label in read_records(str(path), {"x": "x"}).labels("x")] == [True, False]


def test_progress_is_told_of_slow_files_alone(tmp_path, monkeypatch):
    path = str(write(tmp_path / "a.jsonl", b'{"x": 1}\n' * 1000))
    told = []
    read_records(path, {"x": "x"}, progress=told.append)
    assert told == []
    monkeypatch.setattr(module, "QUIET", -1.0)
    monkeypatch.setattr(module, "EVERY", -1.0)
    read_records(path, {"x": "x"}, progress=told.append)
    assert told == [256, 512, 768]


def test_a_data_set_of_the_hub_is_read_like_a_file(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "train.jsonl", jsonl(ROWS))
    write(folder / "test.jsonl", jsonl(ROWS[:1]))
    records = read_records(f"hf:{folder}", COLUMNS)
    assert records.columns == {ours: [row[theirs] for row in ROWS] for ours, theirs in COLUMNS.items()}
    assert records.where(2) == f"hf:{folder}, row 3"
    named = [read_records(f"hf:{folder}{end}", COLUMNS) for end in (":test", "?split=test")]
    assert [len(one) for one in named] == [1, 1]
    assert named[0].sha256 == named[1].sha256 != records.sha256
    with pytest.raises(UserError, match=r"row 1: no column 'sentense'"):
        read_records(f"hf:{folder}", {"text": "sentense"})
    with pytest.raises(UserError, match="Cannot open"):
        read_records(f"hf:{folder}:none", COLUMNS)
    with pytest.raises(UserError, match="names no split"):
        read_records(f"hf:{folder}?split=", COLUMNS)


def check_answers(records):
    """Each answer begins where the record says."""
    rows = zip(records.texts("context"), records.text_lists("answers"), records.integer_lists("starts"), strict=True)
    for text, answers, starts in rows:
        assert answers
        assert all(text[start : start + len(a)] == a for a, start in zip(answers, starts, strict=True))


ANSWER_COLUMNS = {"context": "context", "answers": "answers.text", "starts": "answers.answer_start"}


def test_files_of_every_kind_of_task():
    tasks = FIXTURES / "tasks"
    records = read_records(str(tasks / "sst2.jsonl"), {"text": "sentence", "label": "label"})
    assert records.labels("label") == [1, 0] * 4
    assert records.texts("text")[0] == "a warm and funny story about two stubborn sisters"
    records = read_records(str(tasks / "wnut17.jsonl"), {"words": "tokens", "tags": "tags"})
    assert [len(words) for words in records.words("words")] == [len(tags) for tags in records.words("tags")]
    records = read_records(f"{tasks / 'klue_ner.tsv'}?conll=char,tag", {"words": "char", "tags": "tag"})
    assert "".join(records.words("words")[2]) == "어제는 비가 왔다."
    assert records.words("tags")[0][:6] == ["B-PS", "I-PS", "O", "O", "B-LC", "I-LC"]
    check_answers(read_records(str(tasks / "korquad.jsonl"), ANSWER_COLUMNS))
    check_answers(read_records(str(tasks / "squad.jsonl"), ANSWER_COLUMNS))


@pytest.mark.slow
def test_published_files_of_every_kind_of_task():
    records = read_records(str(published("tasks/glue/sst2/dev.jsonl.gz")), {"text": "sentence", "label": "label"})
    assert (len(records), sorted(set(records.labels("label")))) == (872, [0, 1])
    assert len(records.texts("text")) == 872
    records = read_records(str(published("tasks/wnut17/dev.jsonl.gz")), {"words": "tokens", "tags": "tags"})
    assert [len(words) for words in records.words("words")] == [len(tags) for tags in records.words("tags")]
    path = published("tasks/klue-dev/klue-ner-v1.1_dev.tsv.gz")
    records = read_records(f"{path}?conll=char,tag", {"words": "char", "tags": "tag"})
    assert len(records) == 5000
    assert "".join(records.words("words")[0]).startswith("경찰은 또 성매매 알선 자금을")
    check_answers(read_records(str(published("tasks/korquad1-dev/dev.jsonl.gz")), ANSWER_COLUMNS))
