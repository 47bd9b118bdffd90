"""Only plain files are read, wherever a file may be anybody's: pipes, devices and sockets are an error at once."""

import json
import os
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from pretextlm import plain_files
from pretextlm.config import read_toml
from pretextlm.data.file_formats import DocumentReader, ReadOptions
from pretextlm.data.manifest import read_manifest
from pretextlm.data.records import read_records
from pretextlm.data.store import sha256_of
from pretextlm.data.tokenizer import load_tokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.prompt_files import read_conversations, read_examples, read_prompts
from pretextlm.hf.provenance import kept
from pretextlm.hf.untrusted_files import read_object
from pretextlm.training.checkpoint import verify
from pretextlm.training.run_directory import Run, read_environment


@contextmanager
def soon():
    """Fails after five seconds: what waits for a pipe's writer would wait for ever."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(5)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def special_files(path: Path) -> dict[str, object]:
    return {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "socket": lambda: socket.socket(socket.AF_UNIX).bind(str(path)),
    }


READERS = {
    "recipe.toml": read_toml,
    "prompts.txt": read_prompts,
    "prompts.jsonl": read_prompts,
    "conversations.jsonl": read_conversations,
    "examples.jsonl": read_examples,
    "tokenizer.json": load_tokenizer,
    "manifest.json": lambda path: read_manifest(path.parent),
    "corpus.txt": lambda path: list(DocumentReader(ReadOptions()).read(path)),
    "corpus.parquet": lambda path: list(DocumentReader(ReadOptions()).read(path)),
    "corpus.jsonl.gz": lambda path: list(DocumentReader(ReadOptions()).read(path)),
    "records.csv": lambda path: read_records(str(path), {"text": "text"}),
    "records.parquet": lambda path: read_records(str(path), {"text": "text"}),
    "tokens.bin": sha256_of,
    "config.json": read_object,
    "metrics.jsonl": lambda path: Run(path.parent, None).metrics(),
    "cost.json": lambda path: Run(path.parent, None).cost(),
}


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
@pytest.mark.parametrize("name", READERS)
def test_a_special_file_is_refused_at_once(tmp_path, name, kind):
    special_files(tmp_path / name)[kind]()
    with soon(), pytest.raises(UserError) as caught:
        READERS[name](tmp_path / name)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_optional_files_that_are_special_are_as_if_they_were_not_there(tmp_path, kind):
    (tmp_path / "origin").mkdir()
    special_files(tmp_path / "environment.json")[kind]()
    special_files(tmp_path / "origin" / "special_tokens_map.json")[kind]()
    with soon():
        assert read_environment(tmp_path) == {}
        assert kept(tmp_path, "special_tokens_map.json") == {}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors"])
def test_a_checkpoint_of_special_files_is_broken(tmp_path, name, kind):
    listed = {name: {} for name in ("model.safetensors", "optimizer.safetensors", "state.json")}
    (tmp_path / "manifest.json").write_text(json.dumps(listed, indent=1))
    (tmp_path / name).unlink(missing_ok=True)
    special_files(tmp_path / name)[kind]()
    with soon():
        assert verify(tmp_path)


def test_links_that_the_user_names_are_followed(tmp_path):
    (tmp_path / "text.txt").write_text("A line.\r\n")
    (tmp_path / "link").symlink_to("text.txt")
    assert plain_files.read_bytes(tmp_path / "link") == b"A line.\r\n"
    assert plain_files.read_text(tmp_path / "link") == "A line.\n"
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        plain_files.read_bytes(tmp_path / "link", follow_links=False)


def test_the_limit_holds_for_files_that_do_not_say_their_size(tmp_path):
    (tmp_path / "text.txt").write_bytes(bytes(11))
    assert plain_files.read_bytes(tmp_path / "text.txt", 11) == bytes(11)
    with pytest.raises(OSError, match="it has 11 bytes, and at most 10 are read"):
        plain_files.read_bytes(tmp_path / "text.txt", 10)
    with pytest.raises(OSError, match="it has more than 10 bytes"):
        plain_files.read_bytes(Path("/proc/cpuinfo"), 10)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 1_000_000, '{"a":' * 100_000, "{'a': 1}", ""])
def test_json_that_is_none_is_a_value_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"."):
        plain_files.read_json(tmp_path / "a.json")
