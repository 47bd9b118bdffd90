"""Atomic writes: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError

AnyPath = str | os.PathLike[str]
"""A path as text or as `Path`; a `Store` or a `Run` is accepted for its directory."""
FULL = re.compile("No space left|quota|too large", re.IGNORECASE)
"""Messages of a disk, or of a share of one, that is full."""
ENOUGH_SPACE = "Give a place that you may write to, with enough space."
NO_PIPE_OR_LINK = os.O_NOFOLLOW | os.O_NONBLOCK
"""Flags with which a pipe or a link in the place of a file is an error."""


class CannotWrite(UserError):
    """Raised when a disk does not take what is to be written: it is full, read-only, failing, or the place is none.

    Args:
        path: the file or directory.
        error: what went wrong, as an exception or in words.
        hint: how to go on.
        size: bytes that it needs; 0: not known.
    """

    def __init__(self, path: Path, error: Exception | str, hint: str, size: int = 0) -> None:
        needed = f", which needs {size:,} bytes" if size else ""
        super().__init__(f"Cannot write {path}{needed}: {_reason(path, error)}.", hint)
        self.error = error


def _reason(path: Path, error: Exception | str) -> str:
    """Returns what went wrong with a disk, and how much space is left where that is the reason."""
    lines = (getattr(error, "strerror", None) or str(error)).strip().splitlines() or [type(error).__name__]
    reason = lines[-1].removesuffix(".")
    if FULL.search(reason) and "bytes are free" not in reason:
        there = next(place for place in (path, *path.absolute().parents) if place.exists())
        return f"{reason}; {shutil.disk_usage(there).free:,} bytes are free"
    return reason


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Writes to a temporary file beside `path`, flushes it to the disk, and renames it.

    One process writes the temporary file at a time, and takes over that of a process that was killed.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with _open_locked(partial) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def _open_locked(path: Path) -> BufferedWriter:
    """Opens a file for writing, alone and from its beginning."""
    while True:
        file = open(path, "ab", opener=lambda name, flags: os.open(name, flags | NO_PIPE_OR_LINK, 0o666))  # noqa: SIM115
        _lock(file.fileno(), fcntl.LOCK_EX)
        if _is_at(file.fileno(), path):
            file.truncate(0)
            return file
        file.close()  # another process held it, and has renamed it since


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 text atomically.

    Raises:
        CannotWrite: a disk or directory does not take it.
    """
    data = text.encode()
    try:
        replace_file(path, data)
    except OSError as error:
        hint = "Give a place in a directory that exists and may be written to, on a disk with room."
        raise CannotWrite(path, error, hint, len(data)) from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a file with one JSON object atomically.

    Raises:
        CannotWrite: a disk or directory does not take it.
    """
    write_text(path, json.dumps(dict(values), indent=1, ensure_ascii=False) + "\n")


@contextmanager
def atomic_directory(out: Path, hint: str, size: int = 0) -> Iterator[Path]:
    """Writes a directory atomically: yields a temporary one beside `out`, and renames it at the end.

    The temporary directory is removed if anything fails, and those of killed processes are removed before.

    Args:
        out: the directory to write.
        hint: of the error if it cannot be written.
        size: bytes that it needs at least.

    Raises:
        CannotWrite: a disk or directory does not take it.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(out)
        if size > shutil.disk_usage(out.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with _locked_partial(out) as partial:
            yield partial
            for path in [*partial.iterdir(), partial]:
                flush(path)
            partial.replace(out)
    except CannotWrite as error:
        raise CannotWrite(out, error.error, hint, size) from None
    except OSError as error:
        raise CannotWrite(out, error, hint, size) from None
    except Exception as error:  # of a library that writes by itself, such as SafetensorError
        if isinstance(error, UserError) or not FULL.search(str(error)):
            raise
        raise CannotWrite(out, error, hint, size) from None


@contextmanager
def _locked_partial(out: Path) -> Iterator[Path]:
    """A temporary directory beside `out`, locked for as long as this process lives, and removed at the end."""
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir()
    try:
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _lock(handle, fcntl.LOCK_EX)
            yield partial
        finally:
            os.close(handle)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_abandoned(out: Path) -> None:
    """Removes temporary directories of killed processes: those that nobody holds."""
    name = re.compile(rf"\.{re.escape(out.name)}\.[0-9a-f]+\.partial")
    for path in [path for path in out.parent.iterdir() if name.fullmatch(path.name)]:
        with suppress(OSError):
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(handle)


def _lock(handle: int, how: int) -> None:
    """Locks a file or directory, where its file system has locks."""
    with suppress(OSError):
        fcntl.flock(handle, how)


def _is_at(handle: int, path: Path) -> bool:
    """Returns whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def writable(directory: Path) -> bool:
    """Returns whether files can be created in a directory, which may not exist yet."""
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def flush(path: Path) -> None:
    """Flushes a file, or the entries of a directory, to the disk.

    Raises:
        OSError: it cannot be opened or flushed.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
