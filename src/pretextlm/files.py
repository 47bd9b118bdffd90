"""Files are written whole or not at all: a reader sees the old one or the new one, never a half."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError


def write_whole(path: Path, text: str) -> None:
    """Write UTF-8 text under a temporary name beside `path`, flush it to the disk, then rename.

    Raises UserError when the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"Cannot write {path}: {error.strerror}.", "Give a place in a directory that exists and may be written to."
        ) from None


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """`write_whole` for one JSON object."""
    write_whole(path, json.dumps(dict(values), indent=1, ensure_ascii=False) + "\n")
