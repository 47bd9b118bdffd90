"""Files are written whole or not at all: a reader sees the old one or the new one, never a half."""

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
"""A path as text or as `Path`; a `Store` or a `Run` stands for its directory."""


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write under a temporary name beside `path`, flush it to the disk, then rename. Raises OSError."""
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


def write_whole(path: Path, text: str) -> None:
    """`replace_file` for UTF-8 text. Raises UserError when the place cannot be written."""
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise UserError(
            f"Cannot write {path}: {error.strerror}.", "Give a place in a directory that exists and may be written to."
        ) from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """`write_whole` for one JSON object."""
    write_whole(path, json.dumps(dict(values), indent=1, ensure_ascii=False) + "\n")


@contextmanager
def whole_directory(out: Path, hint: str) -> Iterator[Path]:
    """A directory to be filled under a temporary name beside `out`: flushed to the disk and renamed at the end.

    What is in it is gone when anything fails. Raises UserError with the hint when the place cannot be written.
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
    """Whether files can be made in a directory, one that is there or can be made."""
    there = next(parent for parent in (directory, *directory.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def flush(path: Path) -> None:
    """Make sure that a file, or a directory's list of names, is on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
