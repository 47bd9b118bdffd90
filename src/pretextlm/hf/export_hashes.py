"""pretextlm.json of an exported directory: the SHA-256 of its other files, for `pretextlm verify` alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pretextlm import __version__
from pretextlm.data.store import sha256_of
from pretextlm.files import write_json
from pretextlm.plain_files import read_json

HASHES: Final = "pretextlm.json"


def write_hashes(directory: Path) -> None:
    """Writes the hashes of all files of a directory, as the last one."""
    files = {path.name: sha256_of(path) for path in sorted(directory.iterdir()) if path.is_file()}
    write_json(
        directory / HASHES, {"format": "pretextlm export", "version": 1, "pretextlm": __version__, "files": files}
    )


def hashes(directory: Path) -> Iterator[tuple[str, str]]:
    """Yields (name, SHA-256) of each file of an exported directory.

    Raises:
        ValueError: pretextlm.json is damaged.
    """
    values = read_json(directory / HASHES)
    files = values.get("files") if isinstance(values, dict) else None
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise ValueError("it has no hashes")
    yield from files.items()
