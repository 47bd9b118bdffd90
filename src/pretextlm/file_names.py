"""What a file's name says about its content, whatever the case of its letters: TEXT.JSONL.GZ is text.jsonl.gz."""

from __future__ import annotations

from pathlib import PurePath

COMPRESSIONS = (".gz", ".zst")


def compression_of(path: PurePath) -> str:
    """Returns one of COMPRESSIONS, or "" where a name has none of them."""
    last = path.suffix.lower()
    return last if last in COMPRESSIONS else ""


def uncompressed_name(path: PurePath) -> str:
    """Returns the name of a file without the suffix of its compression."""
    return path.stem if compression_of(path) else path.name


def suffix_of(path: PurePath) -> str:
    """Returns the suffix of a file in small letters, not counting that of its compression: ".jsonl" for X.JSONL.GZ."""
    return PurePath(uncompressed_name(path)).suffix.lower()
