"""Names that become a part of a path: of a run in runs/NAME, of a study in studies/NAME, of quickstart's text."""

from __future__ import annotations

import hashlib
import re

from pretextlm.printable import COMMANDING

MOST_BYTES = 200
"""File systems take 255; suffixes and temporary names need some."""


def one_directory(name: str) -> str:
    """Returns a name that is one directory, below the one it is written in.

    Raises:
        ValueError: it is empty, has a separator, leads upwards, or is too long.
    """
    if not name or name != name.strip():
        raise ValueError("a name is not empty and has no space at its ends")
    if name in (".", "..") or re.search(r"[/\\\t\n]", name) or COMMANDING.search(name):
        raise ValueError("a name becomes a directory: it has no '/', no '\\' and no control character, and is not '..'")
    if len(name.encode()) > MOST_BYTES:
        raise ValueError(f"a name has at most {MOST_BYTES} bytes")
    return name


def directory_name(title: str, default: str) -> str:
    """Returns a directory's name for any text: its words with hyphens between them, or `default` if it has none."""
    return shortened(re.sub(r"[^\w-]+", "-", title).strip("-") or default)


def shortened(name: str) -> str:
    """Returns a name of at most MOST_BYTES; a longer one ends with its hash, so that two never become the same."""
    if len(name.encode()) <= MOST_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: MOST_BYTES - 13].decode(errors='ignore')}-{digest}"
