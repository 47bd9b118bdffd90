"""Reading files that anybody may have written: plain files only, within a limit of size.

Opening a named pipe waits for its writer for ever, and a device such as /dev/zero has no end. Here both are an OSError
at once, as are files that are too large, so that callers handle them as any file that cannot be read.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

MAX_BYTES = 256 << 20
"""Limit of files that are read whole, unless the caller has a lower one."""


def open_plain(path: Path, limit: int | None = None, *, follow_links: bool = True) -> BufferedReader:
    """Opens a plain file for reading.

    Args:
        path: the file.
        limit: its maximum number of bytes; None: any.
        follow_links: whether the file may be a symbolic link.

    Raises:
        OSError: it cannot be opened, is a directory, a pipe, a socket or a device, or has more bytes than `limit`.
    """
    flags = os.O_NONBLOCK | os.O_NOCTTY | (0 if follow_links else os.O_NOFOLLOW)
    file = open(path, "rb", opener=lambda name, reading: os.open(name, reading | flags))  # noqa: SIM115 - returned
    found = os.fstat(file.fileno())
    if stat.S_ISREG(found.st_mode) and (limit is None or found.st_size <= limit):
        return file
    file.close()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
    raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, and at most {limit:,} are read", str(path))


def cached_blob(path: Path) -> Path:
    """Returns the blob that a file of Hugging Face's cache links to, or any other path unchanged.

    In the cache, models--NAME/snapshots/REVISION/config.json is a link to models--NAME/blobs/HASH.
    """
    snapshots = next((place for place in path.absolute().parents if place.name == "snapshots"), None)
    if snapshots is None or not path.is_symlink():
        return path
    target = path.resolve()
    return target if target.parent == (snapshots.parent / "blobs").resolve() else path


def read_bytes(path: Path, limit: int = MAX_BYTES, *, follow_links: bool = True) -> bytes:
    """Returns the content of a plain file.

    Raises:
        OSError: as `open_plain`; files of /proc, which do not know their size, are measured while they are read.
    """
    with open_plain(path, limit, follow_links=follow_links) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return data


def read_text(path: Path, limit: int = MAX_BYTES, encoding: str = "utf-8-sig", errors: str = "strict") -> str:
    """Returns the text of a plain file, line ends as newlines; a byte order mark is no part of it.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not text in this encoding.
    """
    text = read_bytes(path, limit).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_json(path: Path, limit: int = MAX_BYTES) -> Any:
    """Returns the value of a JSON file.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is not UTF-8, not JSON, nested too deeply, or holds a number of thousands of digits.
    """
    return parse_json(read_text(path, limit))


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: as `read_json`.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
