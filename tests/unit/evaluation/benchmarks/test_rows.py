"""Rows of local copies and of the hub, with their places and hashes."""

from __future__ import annotations

import gzip
import hashlib
import json

import pytest

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import Benchmark
from pretextlm.evaluation.benchmarks.rows import read_rows, read_shots

FORM = {"choices": "choices", "answer": "answer"}


def benchmark(**fields: object) -> Benchmark:
    return Benchmark.parse({"name": "mine", "title": "Mine", "folder": "mine", "forms": [FORM], **fields})


def lines(count: int, mark: str) -> bytes:
    rows = ({"choices": [mark, str(n)], "answer": 0} for n in range(count))
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_a_local_copy_is_found_in_its_folder_one_level_deeper_or_given_itself(tmp_path):
    folder = tmp_path / "eval" / "mine"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_bytes(lines(3, "a"))
    for data in (tmp_path, tmp_path / "eval", folder, folder / "test.jsonl"):
        rows = read_rows(benchmark(), str(data))
        assert (rows.split, len(rows.records)) == ("test", 3)
        assert rows.records[1].where == f"{folder / 'test.jsonl'}, line 2"
        assert rows.hashes == {"test.jsonl": hashlib.sha256(lines(3, "a")).hexdigest()}


def test_the_first_part_that_is_there_is_asked_and_examples_come_from_their_own(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "dev.jsonl").write_bytes(lines(2, "dev"))
    (folder / "validation.jsonl.gz").write_bytes(gzip.compress(lines(4, "validation")))
    (folder / "train-00000-of-00002.csv").write_text("choices,answer\nx,1\n")
    (folder / "train-00001-of-00002.csv").write_text("choices,answer\ny,0\nz,0\n")
    assert read_rows(benchmark(), str(tmp_path)).split == "validation"
    assert len(read_rows(benchmark(), str(tmp_path), split="dev").records) == 2
    shots = read_shots(benchmark(), str(tmp_path))
    assert [record.values["choices"] for record in shots.records] == ["x", "y", "z"]
    assert read_shots(benchmark(shots_from=["nothing"]), str(tmp_path)) is None


def test_every_file_of_a_whole_folder_belongs_to_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("b", "a"):
        (folder / f"{name}.jsonl").write_bytes(lines(2, name))
    (folder / "README.md").write_text("not data")
    rows = read_rows(benchmark(whole_folder=True), str(tmp_path))
    assert [record.values["choices"][0] for record in rows.records] == ["a", "a", "b", "b"]
    assert list(rows.hashes) == ["a.jsonl", "b.jsonl"]


def test_parquet_is_read_with_all_its_columns(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"choices": [["a", "b"], ["c", "d"]], "answer": [0, 1]})
    parquet.write_table(table, tmp_path / "test.parquet")
    rows = read_rows(benchmark(), str(tmp_path / "test.parquet"))
    assert rows.records[1].values == {"choices": ["c", "d"], "answer": 1}
    assert rows.records[1].where.endswith("test.parquet, row 2")


def test_a_data_set_of_the_hub_or_a_directory_of_one_is_read_by_datasets(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_bytes(lines(3, "t"))
    (tmp_path / "set" / "train.jsonl").write_bytes(lines(5, "s"))
    mine = benchmark(hub={"path": str(tmp_path / "set")})
    rows, shots = read_rows(mine, "hf:"), read_shots(mine, "hf:")
    assert (len(rows.records), len(shots.records)) == (3, 5)
    assert rows.records[2].values == {"choices": ["t", "2"], "answer": 0}
    assert rows.records[2].where == f"hf:{tmp_path / 'set'}:test, row 3"
    assert rows.hashes == read_rows(mine, "hf:").hashes != shots.hashes
    with pytest.raises(UserError, match="Cannot read hf:"):
        read_rows(mine, "hf:", split="nothing")


def test_what_is_not_there_is_named(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(UserError, match="does not exist"):
        read_rows(benchmark(), str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="has no folder other"):
        read_rows(benchmark(folder="other"), str(tmp_path))
    (folder / "train.jsonl").write_bytes(lines(1, "a"))
    with pytest.raises(UserError, match="has no file test or validation") as caught:
        read_rows(benchmark(), str(tmp_path))
    assert caught.value.hint == "It has train: --split train."
    with pytest.raises(UserError, match="has no place on the hub"):
        read_rows(benchmark(), "hf:")
    (folder / "test.jsonl").write_bytes(b"\n")
    with pytest.raises(UserError, match="holds no row"):
        read_rows(benchmark(), str(tmp_path))
    (folder / "test.jsonl").write_bytes(b'{"choices": 1}\n{"choices"\n')
    with pytest.raises(UserError, match=r"test\.jsonl, line 2: not JSON"):
        read_rows(benchmark(), str(tmp_path))
