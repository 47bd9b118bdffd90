"""Corpora made to fill the memory, or to be read for ever: read or refused by name, soon, and in bounded memory.

Each input is read in a forked child that measures its time and its peak of memory beyond what importing took.
"""

import gzip
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.harness import FULL

from pretextlm.data.file_formats import DocumentReader, ReadOptions
from pretextlm.errors import UserError

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
zstandard = pytest.importorskip("zstandard")

BYTES, SECONDS = 500 << 20, 2.0
MB = (60 if FULL else 12) << 20
"""Size of a long line; the memory that it may take shrinks with it."""
LIMIT = 64 if FULL else 13


def record(text: str) -> bytes:
    return json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n"


def repeated(rows: int, size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        one = arrow.DictionaryArray.from_arrays(arrow.array([0] * rows, arrow.int32()), arrow.array(["a" * size]))
        parquet.write_table(arrow.table({"text": one}), path, compression="zstd")

    return write


def page(path: Path) -> None:
    table = arrow.table({"text": arrow.array(["a" * (1 << 27)])})
    parquet.write_table(table, path, compression="zstd", use_dictionary=False)


def data(content: Callable[[], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content()) and None


def zipped(path: Path) -> None:
    with gzip.open(path, "wb", 9) as file:
        for _ in range(200):
            file.write(bytes(b"a" * (1 << 20)))


READ = {  # inputs that are long, and read
    "letters.jsonl": data(lambda: record("a b " * (MB // 4))),
    "escapes.jsonl": data(lambda: json.dumps({"text": "ab\n" * (MB // 4)}).encode()),
    "korean.jsonl": data(lambda: record("나는 " * (MB // 7))),
    "emoji.jsonl": data(lambda: record("😀" + "a b " * (MB // 4))),
    "field.csv": data(lambda: b'text\n"' + b"a b " * (MB // 4) + b'"\n'),
    "repeated.parquet": repeated(64, 1 << 20),
}
BOMBS = {  # inputs that are refused, and why
    "lists.jsonl": (data(lambda: b'{"text":[' + b"[]," * (MB // 3) + b"[]]}"), "more than 4,000,000 values"),
    "objects.jsonl": (data(lambda: b'{"text":[' + b'{"a":1},' * (MB // 8) + b"{}]}"), "more than 4,000,000 values"),
    "deep.jsonl": (data(lambda: b'{"text":' * 100_000), "recursion|nested too deeply"),
    "number.jsonl": (data(lambda: b'{"text": ' + b"1" * 1_000_000 + b"}"), "not JSON"),
    "commas.csv": (data(lambda: b"text\n" + b"," * MB + b"\n"), "more than 4,000,000 fields"),
    "columns.csv": (data(lambda: b"text" + b",ab" * 200_000 + b"\n"), "200,001 columns"),
    "open.csv": (data(lambda: b'text\n"' + (b"a" * 1023 + b"\n") * (LIMIT * 1024 + 1024)), "a row longer than"),
    "line.jsonl": (data(lambda: b'{"text": "' + b"a" * (LIMIT << 20) + b'"}'), "longer than"),
    "gzip.txt.gz": (zipped, "more than 500 times its size"),
    "gzip.jsonl.gz": (zipped, "longer than|more than 500 times its size"),
    "zstd.txt.zst": (
        data(lambda: zstandard.ZstdCompressor().compress((b"a" * 1023 + b"\n") * (200 << 10))),
        "more than 500 times its size",
    ),
    "page.parquet": (page, "becomes 134,217,"),
    "shared.parquet": (repeated(256, 16 << 20), "repeated texts fill more than"),
}


class Measured(dict):
    """What a child found: "seconds", "bytes" beyond those at its start, "characters" read, "error"."""


def measured(work: Callable[[], Iterator[str]]) -> Measured:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        found = {"characters": 0, "error": ""}
        try:
            before = _memory("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            start = time.process_time()
            try:
                found["characters"] = sum(map(len, work()))
            except UserError as error:
                found["error"] = error.message
            found |= {"seconds": time.process_time() - start, "bytes": _memory("VmHWM") - before}
        except BaseException as error:
            found["error"] = f"traceback: {error!r}"
        finally:
            os.write(writer, json.dumps(found).encode())
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read()
    os.waitpid(child, 0)
    return Measured(json.loads(said))


def _memory(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) << 10


def reading(path: Path, **options: object) -> Callable[[], Iterator[str]]:
    return lambda: DocumentReader(ReadOptions(max_document_bytes=LIMIT << 20, **options)).read(path)


@pytest.mark.parametrize("name", READ)
def test_a_long_text_is_read_in_bounded_memory(tmp_path, name):
    READ[name](tmp_path / name)
    found = measured(reading(tmp_path / name))
    assert not found["error"]
    assert found["characters"] > MB / 3
    assert found["bytes"] < (BYTES if FULL else BYTES // 3)


@pytest.mark.parametrize("on_error", ["error", "skip"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon_in_bounded_memory(tmp_path, name, on_error):
    if on_error == "skip" and not FULL and name not in ("deep.jsonl", "page.parquet", "columns.csv"):
        pytest.skip("in `make faults`")
    write, match = BOMBS[name]
    write(tmp_path / name)
    found = measured(reading(tmp_path / name, on_error=on_error))
    if on_error == "error":
        assert str(tmp_path / name) in found["error"]
        assert any(part in found["error"] for part in match.split("|")), found["error"]
    else:
        assert not found["error"]
    assert found["bytes"] < BYTES
    assert found["seconds"] < SECONDS


@pytest.mark.parametrize("options", [{"text_mode": "paragraphs"}, {"split_long": 0}], ids=str)
def test_a_text_without_an_end_is_a_bad_document_and_reading_goes_on(tmp_path, options):
    """The paragraph after it is read; a file of one document ends there."""
    path = tmp_path / "text.txt"
    path.write_bytes((b"a" * 1023 + b"\n") * (LIMIT * 1024 + 2) + b"\nThe end.\n")
    found = measured(reading(path, **options))
    assert f"{path}: a document of more than {LIMIT << 20:,} characters" in found["error"]
    found = measured(reading(path, on_error="skip", **options))
    assert not found["error"]
    assert found["characters"] == (len("The end.") if "text_mode" in options else 0)
    assert found["bytes"] < BYTES


def test_texts_that_rows_share_are_what_they_were(tmp_path):
    texts = ["one", "two", None, "one", "나는"] * 100
    nested = [{"part": text, "all": [text or "", "x"]} for text in texts]
    parquet.write_table(arrow.table({"text": texts, "meta": nested, "n": list(range(500))}), tmp_path / "a.parquet")
    for field, wanted in (("text", "two"), ("meta.part", "two"), ("meta.all", "two\nx")):
        reader = DocumentReader(ReadOptions(field=field, on_error="skip"))
        found = list(reader.read(tmp_path / "a.parquet"))
        assert found.count(wanted) == 100
        assert len(found) + reader.skipped == 500
