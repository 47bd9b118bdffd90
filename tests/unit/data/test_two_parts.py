"""Preparing pairs: two named fields of a record become one document of two parts."""

from __future__ import annotations

import csv
import gzip
import io
import json
from itertools import pairwise

import numpy as np
import pytest

from pretextlm.data.file_formats import ReadOptions
from pretextlm.data.prepare import PrepareConfig, prepare
from pretextlm.data.sources import find_source
from pretextlm.data.store import Store
from pretextlm.errors import UserError

WORDS = ["river", "바다는", "letter", "bread", "새벽에", "morning", "harbour"]
PAIRS = [
    ("The river. It is wide.", 'Der "Fluss"; er ist breit.'),
    ("A letter,\nwith two lines", "Ein Brief"),
    ("새벽에 바다는", "Das Meer, früh"),
]


def read(spec, **options):
    source = find_source(str(spec))
    return list(source.documents(source.reader(ReadOptions(**options))))


def records(pairs=PAIRS, names=("en", "de")):
    return [{"id": str(i), names[1]: target, names[0]: source} for i, (source, target) in enumerate(pairs)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows, **how):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **how)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(gzip.compress(out.getvalue().encode()) if path.suffix == ".gz" else out.getvalue().encode())
    return path


def text(number):
    rng = np.random.default_rng(number)
    return " ".join(WORDS[i] for i in rng.integers(0, 7, 12)) + f". Number {number}. End."


def options(**values):
    return PrepareConfig.parse({"vocab_size": 640, "validation": 0.1, **values})


def texts_of(store, split):
    """Each document's texts, cut where its sentences begin if it is a pair."""
    found = []
    for index in range(split.num_documents):
        begin, end = int(split.documents[index]), int(split.documents[index + 1])
        inside = split.sentences[(split.sentences >= begin) & (split.sentences < end)].astype(int).tolist()
        cuts = [*inside, end] if split.pairs[index] else [begin, end]
        found.append(tuple(store.tokenizer.decode(split.tokens[a:b].tolist()) for a, b in pairwise(cuts)))
    return found


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz", "a.tsv", "a.parquet"])
def test_pairs_are_read_by_the_names_of_their_fields(tmp_path, name):
    path, rows = tmp_path / name, records()
    if name.startswith("a.tsv"):
        rows = [{key: value.replace("\n", " ") for key, value in row.items()} for row in rows]
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")  # quotation marks are text
    elif name.startswith("a.csv"):
        write_csv(path, rows)
    elif name == "a.parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist(rows), path)
    else:
        write_lines(path, rows)
    expected = [(row["en"], row["de"]) for row in rows]
    assert read(f"{path}?source=en&target=de") == expected
    assert read(f"{path}?source=de&target=en") == [(b, a) for a, b in expected]
    assert read(f"{path}?target=de&prefix=to German: &source=en") == [("to German: " + a, b) for a, b in expected]
    assert read(f"{path}?field=de") == [b for _, b in expected]


def test_a_data_set_of_pairs_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set").mkdir()
    write_lines(tmp_path / "set" / "train.jsonl", records())
    assert read(f"hf:{tmp_path / 'set'}?source=en&target=de") == PAIRS
    with pytest.raises(UserError, match="no field 'fr'"):
        read(f"hf:{tmp_path / 'set'}?source=en&target=fr")


def test_a_directory_of_records_is_read_for_its_records(tmp_path):
    write_lines(tmp_path / "b.jsonl", records())
    write_csv(tmp_path / "a.csv", records())
    (tmp_path / "notes.txt").write_text("not a record")
    assert read(f"{tmp_path}?source=en&target=de") == PAIRS + PAIRS
    (tmp_path / "b.jsonl").unlink()
    assert read(tmp_path) == ["not a record"]  # as before: tables are read only where their fields are named


def test_numbers_become_the_words_that_were_given_for_them(tmp_path):
    rows = [
        {"s": "bad", "label": 0},
        {"s": "good", "label": 1},
        {"s": "fine", "label": True},
        {"s": "so", "label": "0"},
    ]
    spec = f"{write_lines(tmp_path / 'a.jsonl', rows)}?source=s&target=label"
    expected = [("bad", "negative"), ("good", "positive"), ("fine", "positive"), ("so", "negative")]
    assert read(f"{spec}&labels=negative,positive") == expected
    with pytest.raises(UserError, match="line 1: the field 'label' is int, not text"):
        read(spec)
    write_lines(tmp_path / "a.jsonl", [{"s": "bad", "label": 2}])
    with pytest.raises(UserError, match="line 1: the field 'label' is 2, no label"):
        read(f"{spec}&labels=negative,positive")


def test_prepared_pairs_come_back_part_by_part_beside_plain_documents(tmp_path):
    pairs = [(text(n), text(1000 + n)) for n in range(150)]
    write_csv(tmp_path / "pairs.csv", records(pairs))
    write_lines(tmp_path / "plain.jsonl", [{"text": text(2000 + n)} for n in range(60)])
    write_lines(tmp_path / "more.jsonl", records(pairs[:40], ("q", "a")))
    specs = [f"{tmp_path}/pairs.csv?source=en&target=de&prefix=task: ", f"{tmp_path}/plain.jsonl"]
    prepare([*specs, f"{tmp_path}/more.jsonl?source=q&target=a"], tmp_path / "store", options())
    store = Store.open(tmp_path / "store")
    store.verify()
    assert [source["parts"] for source in store.manifest["sources"]] == [2, 1, 2]
    assert store.train.parts == (2, 1, 2)
    found = texts_of(store, store.train) + texts_of(store, store.validation)
    expected = [("task: " + a, b) for a, b in pairs] + [(text(2000 + n),) for n in range(60)] + pairs[:40]
    assert sorted(found) == sorted(expected)
    sizes = sum(len(part.encode()) for parts in expected for part in parts)
    assert sizes == sum(source["bytes"] for source in store.manifest["sources"])
    assert sizes == store.train.text_bytes + store.validation.text_bytes
    for split in (store.train, store.validation):
        begins = np.flatnonzero(split.word_starts(np.arange(split.num_tokens)))
        assert np.isin(split.sentences.astype(int), begins).all()
        counts = np.diff(np.searchsorted(split.sentences, split.documents))
        assert (counts[split.pairs] == 2).all()
        assert (counts[~split.pairs] == 3).all()


def test_plain_documents_come_first_and_are_a_view_without_the_pairs(tmp_path):
    write_lines(tmp_path / "pairs.jsonl", records([(text(n), text(500 + n)) for n in range(50)]))
    write_lines(tmp_path / "plain.jsonl", [{"text": text(2000 + n)} for n in range(50)])
    prepare([f"{tmp_path}/pairs.jsonl?source=en&target=de", f"{tmp_path}/plain.jsonl"], tmp_path / "store", options())
    split = Store.open(tmp_path / "store").train
    plain = split.plain()
    assert np.shares_memory(plain.tokens, split.tokens)
    assert plain.num_documents == np.count_nonzero(~split.pairs) > 30
    assert not plain.pairs.any()
    assert plain.num_tokens == int(split.documents[plain.num_documents])


def test_the_same_bytes_come_out_for_any_number_of_workers_and_after_an_interruption(tmp_path, monkeypatch):
    from pretextlm.data import prepare as module

    monkeypatch.setattr(module, "SHARD_BYTES", 2000)
    write_lines(tmp_path / "pairs.jsonl", records([(text(n), text(500 + n)) for n in range(120)]))
    specs = [f"{tmp_path}/pairs.jsonl?source=en&target=de"]
    prepare(specs, tmp_path / "a", options())
    real, done = module.save_shard, []

    def dies(path, shard, encoder):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(path)
        return real(path, shard, encoder)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_shard", dies)
        with pytest.raises(KeyboardInterrupt):
            prepare(specs, tmp_path / "b", options(workers=2))
    prepare(specs, tmp_path / "b", options(workers=2))
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_a_store_of_before_opens_as_one_of_plain_documents(tmp_path):
    write_lines(tmp_path / "plain.jsonl", [{"text": text(n)} for n in range(50)])
    prepare([f"{tmp_path}/plain.jsonl"], tmp_path / "store", options())
    place = tmp_path / "store" / "manifest.json"
    manifest = json.loads(place.read_text(encoding="utf-8"))
    del manifest["sources"][0]["parts"]
    place.write_text(json.dumps(manifest), encoding="utf-8")
    split = Store.open(tmp_path / "store").train
    assert not split.pairs.any()
    assert split.plain().num_documents == split.num_documents


@pytest.mark.parametrize(("kind", "place"), [("jsonl", "line 2"), ("csv", "line 3")])
def test_half_a_pair_is_refused_by_its_row_or_left_out_and_counted(tmp_path, kind, place):
    rows = [*records([("one", "eins"), ("two", "  "), ("", ""), ("four", "vier")])]
    path = tmp_path / f"a.{kind}"
    write_lines(path, rows) if kind == "jsonl" else write_csv(path, rows)
    spec = f"{path}?source=en&target=de&prefix=x: "
    with pytest.raises(UserError, match=f"{place}: the field 'de' is empty") as caught:
        read(spec)
    assert "--on-error skip" in caught.value.hint
    prepare([spec], tmp_path / "store", options(on_error="skip", validation=0.5))
    (source,) = Store.open(tmp_path / "store").manifest["sources"]
    assert (source["documents"], source["empty"], source["skipped"]) == (2, 1, 1)


def test_a_field_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", records(names=("question", "answer")))
    with pytest.raises(UserError, match=r"line 1: no field 'answr'") as caught:
        read(f"{path}?source=question&target=answr")
    assert "'answer'" in caught.value.hint
    table = write_csv(tmp_path / "a.csv", records(names=("question", "answer")))
    with pytest.raises(UserError, match="no column 'answr'"):
        read(f"{table}?source=question&target=answr", on_error="skip")  # no row of it can be read


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("source=en", "one field of a pair"),
        ("target=de", "one field of a pair"),
        ("prefix=x: ", "a single text"),
        ("field=en&source=en&target=de", "does not say what to read"),
        ("field=en&prefix=x: ", "a single text"),
        ("source=en&target=", "no value"),
        ("source=en&source=de&target=de", "twice"),
        ("sauce=en&target=de", "unknown option 'sauce'"),
    ],
)
def test_a_source_that_says_something_impossible_is_refused_before_any_work(tmp_path, query, message):
    path = write_lines(tmp_path / "a.jsonl", records())
    with pytest.raises(UserError, match=message):
        find_source(f"{path}?{query}")


def test_texts_have_no_fields(tmp_path):
    (tmp_path / "a.txt").write_text("plain")
    with pytest.raises(UserError, match="no fields"):
        find_source(f"{tmp_path}/a.txt?source=en&target=de")
    with pytest.raises(UserError, match="text, without fields"):
        find_source("package:json?field=text")


def test_a_file_with_a_question_mark_in_its_name_is_that_file(tmp_path):
    path = write_lines(tmp_path / "what?field=x.jsonl", [{"text": "yes"}])
    assert read(path) == ["yes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("en,de\na,b\nc\n", "line 3: 1 fields, the header has 2"),
        ('en,de\na,b\n"c,d\n', "line 3: unexpected end of data"),
        ("en,en\na,b\n", "2 columns 'en'"),
        ("en,de\na,\x00b\n", "line 2: the text holds a NUL"),
    ],
)
def test_a_faulty_table_is_refused_by_its_line(tmp_path, content, message):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read(f"{tmp_path}/a.csv?source=en&target=de")


def test_samples_of_a_store_show_where_the_target_begins(tmp_path):
    from pretextlm.cli.data import sample_documents

    pairs = [(text(n), text(500 + n)) for n in range(40)]
    write_lines(tmp_path / "pairs.jsonl", records(pairs))
    prepare([f"{tmp_path}/pairs.jsonl?source=en&target=de"], tmp_path / "store", options())
    shown = [sample["text"] for sample in sample_documents(Store.open(tmp_path / "store"), 10, tokens=1000)]
    assert len(shown) == 10
    assert set(shown) <= {f"{a} → {b}" for a, b in pairs}
    short = [sample["text"] for sample in sample_documents(Store.open(tmp_path / "store"), 10, tokens=3)]
    assert not any("→" in sample for sample in short)


def test_a_long_text_of_a_pair_is_not_cut(tmp_path):
    pair = ("word " * 3000, "Wort\n\n" * 3000)
    path = write_lines(tmp_path / "a.jsonl", records([pair]))
    assert read(f"{path}?source=en&target=de", split_long=1000) == [pair]
