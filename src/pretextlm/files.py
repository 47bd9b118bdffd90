"""Atomic writes: a reader sees the old file or the new one, never a part of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError

AnyPath = str | os.PathLike[str]
"""A path as text or as `Path`; a `Store` or a `Run` is accepted for its directory."""


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Writes to a temporary file beside `path`, flushes it to the disk, and renames it.

    Raises:
        OSError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a file of UTF-8 text atomically.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}.", "Give a place in a directory that exists and may be written to."
        ) from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a file with one JSON object atomically.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, json.dumps(dict(values), indent=1, ensure_ascii=False) + "\n")


@contextmanager
def atomic_directory(out: Path, hint: str) -> Iterator[Path]:
    """Writes a directory atomically: yields a temporary one beside `out`, and renames it at the end.

    The temporary directory is removed if anything fails.

    Args:
        out: the directory to write.
        hint: of the error if it cannot be written.

    Raises:
        UserError: the directory cannot be written.
    """
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        yield partial
        for path in [*partial.iterdir(), partial]:
            flush(path)
        partial.replace(out)
    except OSError as error:
        raise UserError(f"Cannot write {out}: {error.strerror}.", hint) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
