"""Bad text, bad files, kills and full disks: named on one screen, and nothing that was there is lost."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from pretextlm.data.file_formats import DocumentReader, ReadOptions
from pretextlm.data.prepare import PrepareConfig, prepare
from pretextlm.data.sources import find_source
from pretextlm.data.store import Store
from pretextlm.errors import UserError

GOOD = b'{"text": "a good document"}\n'


def read(path, on_error="error", **options):
    reader = DocumentReader(ReadOptions(on_error=on_error, **options))
    return list(find_source(str(path)).documents(reader)), reader.skipped


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', "not JSON"),
        (b"[1, 2]", "list, not an object"),
        (b"[" * 100_000, "not JSON"),
        (b'{"body": "x"}', "no field 'text'"),
        (b'{"text": 3}', "int, not text"),
        (b'{"text": null}', "null, not text"),
        (b'{"text": {"a": "x"}}', "dict, not text"),
        (b'{"text": ["x", 3]}', "int, not text"),
        (b'{"text": "a", "text": "b"}', "occurs twice"),
        (rb'{"text": "\ud83d alone"}', "lone surrogate"),
        (rb'{"text": "a\u0000b"}', "NUL"),
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": "' + b"x" * 2000 + b'"}', "longer than 1,000 bytes"),
    ],
)
def test_a_bad_json_line_is_named_or_skipped_and_counted(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD + line + b"\n" + GOOD)
    limit = 1000 if message.startswith("longer") else 1 << 20
    with pytest.raises(UserError, match=message) as caught:
        read(path, max_document_bytes=limit)
    assert f"{path}, line 2" in str(caught.value)
    assert caught.value.hint
    assert len(str(caught.value)) < 600
    assert read(path, "skip", max_document_bytes=limit) == (["a good document"] * 2, 1)


@pytest.mark.parametrize(("bad", "message"), [(b"caf\xe9", "byte 4 is not UTF-8"), (b"a\0b", "NUL")])
def test_a_bad_text_file_is_named_or_skipped_and_counted(tmp_path, bad, message):
    (tmp_path / "a.txt").write_bytes(b"fine\nfine\n" + bad + b"\nfine\n")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.txt")
    assert "a.txt, line 3" in str(caught.value)
    assert read(tmp_path / "a.txt", "skip") == ([], 1)
    assert read(tmp_path / "a.txt", "skip", text_mode="lines") == (["fine"] * 3, 1)


def compress(data, suffix):
    if suffix == ".gz":
        return gzip.compress(data)
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "noise", "flip"])
def test_a_damaged_compressed_file_is_named_or_skipped(tmp_path, suffix, damage):
    path = tmp_path / f"a.jsonl{suffix}"
    data = bytearray(compress(b"".join(b'{"text": "%d"}\n' % n for n in range(5000)), suffix))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "noise":
        data = bytearray(b"this is no compressed file at all")
    else:
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"damaged or cut short|not JSON|not UTF-8"):
        read(path)
    documents, skipped = read(path, "skip")
    assert skipped >= 1
    assert len(documents) < 5000


@pytest.mark.parametrize("damage", ["cut", "noise", "column", "type"])
def test_a_damaged_parquet_file_is_named(tmp_path, damage):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    values = {"body" if damage == "column" else "text": [1, 2] if damage == "type" else ["x", "y"]}
    parquet.write_table(arrow.table(values), path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "noise":
        path.write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(UserError, match=r"a\.parquet"):
        read(path)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_bomb_is_refused_in_bounded_memory(tmp_path, suffix):
    path = tmp_path / f"bomb.txt{suffix}"
    path.write_bytes(compress(bytes(200_000_000), suffix))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"longer than|more than 500 times its size"):
        read(path, max_document_bytes=1 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_source_that_is_not_there_or_no_file_is_named(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        find_source(str(tmp_path / "nowhere.txt"))
    (tmp_path / "a.docx").write_bytes(b"PK\0\0")
    with pytest.raises(UserError, match=r"holds nothing to read. Left out: 1 \.docx \(binary\)"):
        find_source(str(tmp_path))
    with pytest.raises(UserError, match="NUL"):
        read(tmp_path / "a.docx")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(UserError, match="special file"):
        read(tmp_path / "pipe.txt")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("a.jsonl.zst", "zstandard", "data"), ("a.parquet", "pyarrow", "data"), ("hf:x", "datasets", "hub")],
)
@pytest.mark.parametrize("on_error", ["error", "skip"])
def test_a_missing_optional_package_is_named_with_its_command(tmp_path, monkeypatch, name, package, extra, on_error):
    monkeypatch.setitem(sys.modules, package, None)
    path = name if ":" in name else tmp_path / name
    if ":" not in name:
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=package) as caught:
        read(path, on_error)
    assert f"pip install 'pretextlm[{extra}]'" in caught.value.hint


CONFIG = PrepareConfig.parse({"vocab_size": 448})


def corpus(folder, documents=300, name="corpus.jsonl"):
    path = folder / name
    lines = (
        json.dumps({"text": f"Document {n} of a corpus, nothing {n * 7919 % 1000} more."}) for n in range(documents)
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("content", [b"", b"\n\n", b'{"text": ""}\n' * 1000, b'{"text": " \\n"}\n'])
def test_a_corpus_without_text_is_a_user_error(tmp_path, content):
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match="no text"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "store", CONFIG)
    assert not (tmp_path / "store.partial").exists()


def test_a_corpus_of_one_document_is_a_user_error(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD * 3)
    with pytest.raises(UserError, match="only one distinct document"):
        prepare([str(tmp_path / "a.jsonl")], tmp_path / "store", CONFIG)


def test_a_store_that_is_there_is_replaced_only_when_asked(tmp_path):
    source = str(corpus(tmp_path))
    prepare([source], tmp_path / "store", CONFIG)
    with pytest.raises(UserError, match="already exists"):
        prepare([source], tmp_path / "store", CONFIG)
    other = str(corpus(tmp_path, 50, "other.jsonl"))
    prepare([other], tmp_path / "store", CONFIG.model_copy(update={"overwrite": True}))
    assert Store.open(tmp_path / "store").manifest["sources"][0]["documents"] == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "other.jsonl", "store"]


def test_only_a_store_is_overwritten(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(UserError, match="not a store"):
        prepare([str(corpus(tmp_path))], tmp_path / "precious", CONFIG.model_copy(update={"overwrite": True}))
    assert (tmp_path / "precious" / "thesis.txt").read_text(encoding="utf-8") == "years of work"


SCRIPT = """
import resource, sys
from pathlib import Path
from pretextlm.data import prepare as module
from pretextlm.errors import UserError
module.SHARD_BYTES = 4000
if sys.argv[3] != "0":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
config = module.PrepareConfig.parse({"vocab_size": 448, "overwrite": True})
print("ready", flush=True)
try:
    module.prepare([sys.argv[1]], Path(sys.argv[2]), config)
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


def start(source, out, largest_file=0):
    command = [sys.executable, "-c", SCRIPT, str(source), str(out), str(largest_file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_killed_overwrite_never_loses_the_old_store_and_resumes_to_the_same_bytes(tmp_path):
    source = corpus(tmp_path, 3000)
    old = str(corpus(tmp_path, 40, "old.jsonl"))
    assert start(source, tmp_path / "whole").wait() == 0
    out = tmp_path / "store"
    prepare([old], out, CONFIG)
    before, after = contents(out), contents(tmp_path / "whole")
    killed = 0
    for attempt in range(12):
        process = start(source, out)
        process.stdout.readline()
        time.sleep(0.02 + 0.03 * attempt)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        place = out if out.exists() else tmp_path / "store.previous"
        assert contents(place) in (before, after)
    assert killed >= 3
    assert start(source, out).wait() == 0
    assert contents(out) == after
    assert not (tmp_path / "store.partial").exists()
    assert not (tmp_path / "store.previous").exists()


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [3_000, 20_000, 60_000])
def test_a_disk_without_space_is_named_and_the_old_store_stays(tmp_path, largest_file):
    source = corpus(tmp_path, 3000)
    prepare([str(corpus(tmp_path, 40, "old.jsonl"))], tmp_path / "store", CONFIG)
    before = contents(tmp_path / "store")
    process = start(source, tmp_path / "store", largest_file)
    _, errors = process.communicate()
    assert process.returncode == 2, errors
    assert "Cannot write" in errors
    assert "Traceback" not in errors
    assert "store.partial" in errors
    assert contents(tmp_path / "store") == before
    assert start(source, tmp_path / "store").wait() == 0
    assert Store.open(tmp_path / "store").manifest["sources"][0]["documents"] == 3000


def test_two_preparations_of_one_store_do_not_mix(tmp_path):
    import fcntl

    (tmp_path / "store.partial").mkdir()
    with (tmp_path / "store.partial" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="Another process"):
            prepare([str(corpus(tmp_path))], tmp_path / "store", CONFIG)
