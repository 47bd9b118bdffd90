"""A disk that is full, read-only or failing: said on one screen, with path and bytes, and nothing earlier is lost."""

import errno
import os
import re
import resource
import shutil
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.errors import UserError
from pretextlm.training import checkpoint, sharded_checkpoint
from pretextlm.training.checkpoint import newest, save
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run, locked

MODEL = {"embed.weight": torch.arange(30_000.0).view(300, 100)}
OPTIMIZER = {"adamw.0.exp_avg": torch.ones(300, 100)}
SIZE = 240_000
"""Bytes of both together."""
OFFSETS = [0, 1, 4096, 40_000, 100_000, 121_000, 130_000, 180_000, 239_000, 241_000]
"""Bytes that fit: into the first file, between the files, in the second one, and none left for the manifest."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte of its own; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@contextmanager
def file_limit(size):
    """No file may become longer than this, as by a quota."""
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        signal.signal(signal.SIGXFSZ, handler)


def fill(place, left):
    """Leave so many bytes, rounded down to the file system's pages."""
    free = shutil.disk_usage(place).free
    (place / "filler").write_bytes(b"\0" * max(0, free - left))


def assert_nothing_lost(run, reason, write):
    """The message says what and how much; the checkpoint before verifies; nothing half-written is left."""
    with pytest.raises(UserError) as caught:
        write()
    message = caught.value.message
    assert str(run / "step-00000002") in message
    assert f"{SIZE:,} bytes" in message
    assert re.search(reason, message)
    assert "--resume" in caught.value.hint
    assert "Traceback" not in message
    assert [path.name for path in run.iterdir()] == ["step-00000001"]
    assert newest(run).step == 1


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_disk_that_is_full_at_any_byte_costs_only_that_checkpoint(small_disk, monkeypatch, offset):
    run = small_disk / "run"
    save(run, 1, MODEL, OPTIMIZER, {"step": 1}, 9)
    fill(small_disk, offset)
    usage = shutil.disk_usage
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage(path)._replace(free=1 << 40))
    assert_nothing_lost(run, os.strerror(errno.ENOSPC), lambda: save(run, 2, MODEL, OPTIMIZER, {"step": 2}, 9))
    (small_disk / "filler").unlink()
    save(run, 2, MODEL, OPTIMIZER, {"step": 2}, 9)
    assert newest(run).step == 2


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(small_disk):
    run = small_disk / "run"
    save(run, 1, MODEL, OPTIMIZER, {"step": 1}, 9)
    fill(small_disk, 200_000)
    assert_nothing_lost(run, "bytes are free", lambda: save(run, 2, MODEL, OPTIMIZER, {"step": 2}, 9))


@pytest.mark.parametrize("offset", [1, 4096, 60_000, 119_000])
def test_a_quota_costs_only_that_checkpoint(tmp_path, offset):
    run = tmp_path / "run"
    save(run, 1, MODEL, OPTIMIZER, {"step": 1}, 9)

    def write():
        with file_limit(offset):
            save(run, 2, MODEL, OPTIMIZER, {"step": 2}, 9)

    assert_nothing_lost(run, "File too large", write)


@pytest.mark.parametrize("offset", [1, 500, 4096, 100_000])
def test_a_quota_costs_only_that_checkpoint_also_of_parts(tmp_path, processes, offset):
    run = tmp_path / "run"
    save(run, 1, MODEL, OPTIMIZER, {"step": 1}, 9)
    final = checkpoint.checkpoint_path(run, 2)

    def write():
        with checkpoint.disk_errors(final, SIZE):
            partial = checkpoint.create_partial(run, 2, SIZE)
            with file_limit(offset):
                groups = {"model": MODEL, "optimizer": OPTIMIZER}
                sharded_checkpoint.write(partial / checkpoint.PARTS, groups, ThreadPoolExecutor(1), processes).result()
            checkpoint.finish(partial, final, {}, 9)

    assert_nothing_lost(run, "no space is left, or a quota is reached|File too large", write)


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES])
@pytest.mark.parametrize("fails_at", ["save_file", "hashlib.file_digest", "flush", "create_partial", "finish"])
def test_any_error_of_the_disk_costs_only_that_checkpoint(tmp_path, monkeypatch, code, fails_at):
    run = tmp_path / "run"
    save(run, 1, MODEL, OPTIMIZER, {"step": 1}, 9)

    def failing(*_args):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"{checkpoint.__name__}.{fails_at}", failing)
        with pytest.raises(UserError, match=os.strerror(code)) as caught:
            save(run, 2, MODEL, OPTIMIZER, {"step": 2}, 9)
    assert str(run / "step-00000002") in caught.value.message
    assert [path.name for path in run.iterdir()] == ["step-00000001"]
    assert newest(run).step == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return str(make_store(tmp_path_factory.mktemp("data") / "store").path)


def story(run):
    return {name: tensor.tolist() for name, tensor in run.load_model().state_dict().items()}


def test_a_run_whose_disk_fills_up_goes_on_after_room_was_made(store, tmp_path, small_disk):
    """By the trainer: the error comes from the thread that writes, and reaches whoever trains."""
    recipe = Recipe.load(values(store, steps=6, hidden_size=16))
    whole = pretrain(recipe, tmp_path / "whole")
    fill(small_disk, 400_000)
    with pytest.raises(UserError, match=r"Cannot write .*step-.*bytes") as caught:
        pretrain(recipe, small_disk / "run", resume=True)
    assert "--resume" in caught.value.hint
    (small_disk / "filler").unlink()
    run = pretrain(recipe.model_copy(), small_disk / "run", resume=True)
    assert story(run) == story(whole)
    assert not list(run.checkpoints.glob(".*"))


@pytest.mark.slow
def test_metrics_on_a_full_disk_end_the_run_with_a_message_and_it_goes_on_without_gap_or_repeat(
    store, tmp_path, monkeypatch
):
    recipe = Recipe.load(values(store, steps=6))
    whole = pretrain(recipe, tmp_path / "whole")
    for lines in (1, 3):
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", half_written(lines))
            with pytest.raises(UserError, match=r"Cannot write .*metrics\.jsonl: No space left") as caught:
                pretrain(recipe, tmp_path / "run", resume=True)
        assert "--resume" in caught.value.hint
    run = pretrain(recipe, tmp_path / "run", resume=True)
    assert story(run) == story(whole)
    assert [(m["kind"], m["step"], m["loss"]) for m in run.metrics()] == [
        (m["kind"], m["step"], m["loss"]) for m in whole.metrics()
    ]


def half_written(lines):
    """`Path.open` on a disk that is full after so many lines of metrics and a half."""
    opened, seen = Path.open, []

    def full(self, mode="r", *of, **options):
        file = opened(self, mode, *of, **options)
        if self.name == "metrics.jsonl" and mode == "a":
            seen.append(1)
            if len(seen) > lines:
                file.write('{"kind": "tr')
                file.close()
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return file

    return full


def test_a_damaged_line_of_metrics_is_named(store, tmp_path):
    recipe = Recipe.load(values(store, steps=2))
    run = pretrain(recipe, tmp_path / "run")
    path = run.directory / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], "\0\0\0\n", *lines[1:]]))
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2, is damaged"):
        pretrain(recipe, tmp_path / "run", resume=True)


@pytest.mark.parametrize("place", ["/proc/nothing", "a file"])
def test_a_directory_that_cannot_be_made_is_named(store, tmp_path, place):
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "run" if place == "a file" else place
    with pytest.raises(UserError, match="Cannot write") as caught:
        pretrain(Recipe.load(values(store)), type(tmp_path)(directory))
    assert str(directory) in caught.value.message
    assert caught.value.hint


def test_a_directory_that_is_read_only_is_named(store, small_disk):
    run = pretrain(Recipe.load(values(store, steps=1, hidden_size=16)), small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UserError, match=r"Cannot write .*run\.lock: Read-only file system"):
        pretrain(Recipe.load(values(store, steps=1, hidden_size=16)), run.directory, resume=True)
    assert Run.open(run.directory).load_model()
    with pytest.raises(UserError, match="Read-only"), locked(small_disk / "other"):
        pass
