"""Suffixes in any case, and a byte order mark before whatever is read."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path

import pytest
from tests.builders import make_store

from pretextlm.config import read_toml
from pretextlm.data.file_formats import format_of
from pretextlm.data.records import read_records
from pretextlm.data.tokenizer import load_tokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import find
from pretextlm.evaluation.predict_input import decoded
from pretextlm.evaluation.prompt_files import Example, read_conversations, read_examples, read_prompts
from pretextlm.file_names import compression_of, suffix_of, uncompressed_name
from pretextlm.hf.untrusted_files import read_object
from pretextlm.shipped_recipes import find_shipped


@pytest.mark.parametrize(
    ("name", "suffix", "compression", "uncompressed"),
    [
        ("TEXT.JSONL.GZ", ".jsonl", ".gz", "TEXT.JSONL"),
        ("a.b.Csv.Zst", ".csv", ".zst", "a.b.Csv"),
        ("A.PARQUET", ".parquet", "", "A.PARQUET"),
        ("X.GZ", "", ".gz", "X"),
        ("plain", "", "", "plain"),
        (".gz", "", "", ".gz"),
    ],
)
def test_a_suffix_has_no_case_and_that_of_a_compression_does_not_count(name, suffix, compression, uncompressed):
    path = Path("Some.Where", name)
    assert (suffix_of(path), compression_of(path), uncompressed_name(path)) == (suffix, compression, uncompressed)


@pytest.mark.parametrize("name", ["a.JSONL", "a.Jsonl.GZ", "a.CSV", "a.tSV.gZ", "a.JSON", "a.PARQUET"])
def test_the_format_of_a_file_has_no_case(name):
    assert format_of(Path(name)) == format_of(Path(name.lower())) != ".txt"


def test_prompts_in_capitals_are_read_as_json_lines(tmp_path):
    path = tmp_path / "ASKED.JSONL"
    path.write_text('{"prompt": "The river", "input": "a", "target": "b"}\n')
    assert read_prompts(path) == read_conversations(path) == ["The river"]
    assert read_examples(path) == [Example("a", "b")]


def test_records_in_capitals_are_decompressed_and_parsed(tmp_path):
    text = "word,tag\nriver,N\n"
    (tmp_path / "A.CSV.GZ").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.csv").write_text(text)
    assert read_records(str(tmp_path / "A.CSV.GZ"), {"word": "word"}).texts("word") == ["river"]
    assert read_records(str(tmp_path / "a.csv"), {"word": "word"}).texts("word") == ["river"]


def test_recipes_and_benchmarks_are_found_in_capitals(tmp_path):
    assert find_shipped("recipes/bert.TOML") == find_shipped("bert") is not None
    (tmp_path / "MINE.TOML").write_text("")
    with pytest.raises(UserError, match="Missing key"):  # it was read
        find(str(tmp_path / "MINE.TOML"))


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    mark = codecs.BOM_UTF8
    store = make_store(tmp_path / "store")
    plain = (store.path / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(mark + plain)
    (tmp_path / "recipe.toml").write_bytes(mark + b"seed = 3\n")
    (tmp_path / "config.json").write_bytes(mark + b'{"model_type": "bert"}')
    (tmp_path / "prompts.jsonl").write_bytes(mark + b'"The river"\n')
    (tmp_path / "rows.jsonl").write_bytes(mark + json.dumps({"word": "ship"}).encode())
    (tmp_path / "rows.tsv").write_bytes(mark + b"word\nship\n")
    assert load_tokenizer(tmp_path / "tokenizer.json").to_str() == store.tokenizer.to_str()
    assert read_toml(tmp_path / "recipe.toml") == {"seed": 3}
    assert read_object(tmp_path / "config.json") == {"model_type": "bert"}
    assert read_prompts(tmp_path / "prompts.jsonl") == ["The river"]
    for name in ("rows.jsonl", "rows.tsv"):
        assert read_records(str(tmp_path / name), {"word": "word"}).texts("word") == ["ship"]
    assert decoded(mark + b"a\n", "the standard input") == "a\n"


def test_bytes_that_are_no_utf_8_are_named():
    with pytest.raises(UserError, match="the standard input: byte 2 is not UTF-8"):
        decoded(b"a\xff", "the standard input")
