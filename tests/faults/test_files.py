"""Files and directories are written whole or not at all, also beside what killed processes left."""

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time

import pytest

from pretextlm import files
from pretextlm.files import CannotWrite, atomic_directory, replace_file, write_text

FORKED = multiprocessing.get_context("fork")


def killed(work, *of):
    """Runs `work` in a process of its own until it has begun, and kills it."""
    began = FORKED.Event()
    process = FORKED.Process(target=work, args=(began, *of))
    process.start()
    assert began.wait(20)
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def half_a_directory(began, out):
    with atomic_directory(out, "") as partial:
        (partial / "weights").write_bytes(b"half")
        began.set()
        time.sleep(60)


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path):
    out = tmp_path / "out[1]"
    killed(half_a_directory, out)
    (tmp_path / ".out[1].1.partial").mkdir()  # as an earlier version left it, by the id of the process
    assert len(list(tmp_path.iterdir())) == 2
    with atomic_directory(out, "") as partial:
        assert list(tmp_path.iterdir()) == [partial]
        (partial / "weights").write_bytes(b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out[1]"]
    assert (out / "weights").read_bytes() == b"whole"


def test_what_a_living_process_writes_is_left_alone_also_where_both_have_one_id(tmp_path, monkeypatch):
    """In containers every command is process 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with atomic_directory(tmp_path / "out", "") as first, atomic_directory(tmp_path / "out", "") as second:
        assert first != second
        assert first.is_dir()


@pytest.mark.parametrize("name", ["other.12.partial", ".out.partial", ".out.x.12.partial", ".other.12.partial"])
def test_nothing_else_is_removed(tmp_path, name):
    (tmp_path / name).mkdir()
    with atomic_directory(tmp_path / "out", ""):
        pass
    assert (tmp_path / name).is_dir()


def test_a_link_in_the_place_of_a_partial_directory_is_not_followed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("")
    (tmp_path / ".out.12.partial").symlink_to(tmp_path / "kept")
    with atomic_directory(tmp_path / "out", ""):
        pass
    assert (tmp_path / "kept" / "file").exists()


def half_a_file(began, path):
    os.fsync = lambda _: (began.set(), time.sleep(60))
    replace_file(path, b"a longer text")


def test_the_file_of_a_killed_process_is_taken_over(tmp_path):
    killed(half_a_file, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == [".file.partial"]
    replace_file(tmp_path / "file", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"whole"


def test_many_writers_of_one_file_leave_the_whole_text_of_one(tmp_path):
    texts = [bytes([65 + number]) * (10_000 * (number + 1)) for number in range(8)]
    writers = [
        threading.Thread(target=lambda text=text: [replace_file(tmp_path / "file", text) for _ in range(10)])
        for text in texts
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if (tmp_path / "file").exists():
            assert (tmp_path / "file").read_bytes() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_pipe_in_the_place_of_a_partial_file_is_an_error(tmp_path):
    os.mkfifo(tmp_path / ".file.partial")
    with pytest.raises(CannotWrite, match="file"):
        write_text(tmp_path / "file", "text")


def test_a_file_system_without_locks_is_written_to(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    write_text(tmp_path / "file", "text")
    with atomic_directory(tmp_path / "out", ""):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        CannotWrite(files.Path("/partial/step-0"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "Use --resume."),
    ],
)
def test_a_full_disk_is_said_once_for_the_directory_that_was_asked_for(tmp_path, error):
    with pytest.raises(CannotWrite) as caught, atomic_directory(tmp_path / "out", "Give space.", 123_456):
        raise error
    assert caught.value.message.startswith(f"Cannot write {tmp_path / 'out'}, which needs 123,456 bytes: ")
    assert "No space left" in caught.value.message
    assert "bytes are free" in caught.value.message
    assert caught.value.hint == "Give space."
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(tmp_path):
    needed = "needs 1,000,000,000,000,000,000 bytes"
    with pytest.raises(CannotWrite, match=needed), atomic_directory(tmp_path / "out", "", 10**18):
        raise AssertionError("it began")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ValueError, match="reason"), atomic_directory(tmp_path / "out", ""):
        raise ValueError("reason")
    assert list(tmp_path.iterdir()) == []
