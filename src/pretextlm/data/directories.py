"""The files of a directory that can be read: text is recognised by its content, and what is left out is counted.

Hidden files and directories are left out. Links to directories are not followed, to avoid loops, nor links to files
elsewhere: who packed the directory does not decide which other files are read. Tables and JSON
hold records and are read if they have the field: code, markup and notes are texts whatever their names.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretextlm.data.encodings import HEAD_BYTES, encoding_by_mark, encoding_of, is_encoded
from pretextlm.data.file_formats import DocumentReader, ReadOptions, format_of, rows_of
from pretextlm.data.streams import DamagedError, open_bytes
from pretextlm.errors import UserError
from pretextlm.plain_files import cached_blob

MOST_KINDS = 50
_CONTROLS = bytes(set(range(0x20)) - set(b"\t\n\v\f\r\b\x1b"))
_PROSE = (".txt", ".md", ".rst")
_NOT = "not in "
_PDF = b"%PDF-"  # may begin with a megabyte of ASCII


@dataclass(frozen=True)
class Contents:
    """What a directory holds.

    Attributes:
        paths: files that are read, sorted.
        left_out: number of other files by suffix and reason, ".png (binary)", the most frequent first.
    """

    paths: list[Path]
    left_out: Mapping[str, int]


def contents_of(
    folders: Iterable[Path], options: ReadOptions, records_only: bool, follow_links: bool = False
) -> Contents:
    """Find the files to read below directories.

    Args:
        folders: the directories.
        options: which fields and which encoding are read.
        records_only: fields are named, so that texts, which have none, are left out.
        follow_links: whether to read files elsewhere that links in the directories name.

    Returns:
        The files, and what is left out.
    """
    paths: list[Path] = []
    left_out: Counter[str] = Counter()
    for folder in folders:
        for place, inner, names in os.walk(folder):
            left_out["hidden"] += sum(name.startswith(".") for name in [*inner, *names])
            inner[:] = [name for name in inner if not name.startswith(".")]
            for path in (Path(place, name) for name in names if not name.startswith(".")):
                leads_out = not follow_links and _leads_out(path, folder)
                reason = "link out of the directory" if leads_out else _reason(path, options, records_only)
                if reason is None:
                    paths.append(path)
                else:
                    left_out[f"{path.suffix.lower() or 'no suffix'} ({reason})"] += 1
    return Contents(sorted(paths), _most_frequent(left_out))


def without_program(contents: Contents) -> Contents:
    """Leave the Python files out of a package of texts, which are only its program: those with more prose than code."""
    size = Counter[str]()
    for path in contents.paths:
        size["code" if path.suffix.lower() == ".py" else "prose" if path.suffix.lower() in _PROSE else "other"] += (
            path.stat().st_size
        )
    if size["prose"] <= size["code"]:
        return contents
    kept = [path for path in contents.paths if path.suffix.lower() != ".py"]
    program = len(contents.paths) - len(kept)
    return Contents(kept, _most_frequent(Counter(contents.left_out) + Counter({".py (program beside texts)": program})))


def listed(left_out: Mapping[str, int], most: int = 12) -> str:
    """Returns what is left out in words: "212 .pyc (binary), 3 .png (binary), 2 hidden.", and a way to read more."""
    shown = [f"{count:,} {kind}" for kind, count in left_out.items()]
    rest = sum(list(left_out.values())[most:])
    way = " --encoding auto reads text in another encoding." if has_other_encodings(left_out) else ""
    return ", ".join(shown[:most]) + (f", {rest:,} others." if rest else ".") + way


def has_other_encodings(left_out: Mapping[str, int]) -> bool:
    """Returns whether files are left out that may be text in another encoding."""
    return any(f"({_NOT}" in kind for kind in left_out)


def _most_frequent(counts: Counter[str]) -> dict[str, int]:
    kinds = sorted((kind for kind, count in counts.items() if count), key=lambda kind: (-counts[kind], kind))
    rest = sum(counts[kind] for kind in kinds[MOST_KINDS:])
    return {kind: counts[kind] for kind in kinds[:MOST_KINDS]} | ({"others": rest} if rest else {})


def _leads_out(path: Path, folder: Path) -> bool:
    """Returns whether a path is a link to a file outside of a directory (and not to a blob of Hugging Face's cache)."""
    if not path.is_symlink() or not path.exists():
        return False
    return cached_blob(path) == path and not path.resolve().is_relative_to(folder.resolve())


def _reason(path: Path, options: ReadOptions, records_only: bool) -> str | None:
    """Returns why a file is not read, None if it is. A damaged file is read: the error is then not overlooked."""
    if not path.is_file():
        return "link to nothing" if path.is_symlink() else "not a regular file"
    if not os.access(path, os.R_OK):
        return "not readable"
    if not path.stat().st_size:
        return "empty"
    if format_of(path) != ".txt":
        return _lacks(path, options)
    try:
        with open_bytes(path) as stream:
            reason = _not_text(stream.read(HEAD_BYTES), options.encoding)
        return reason or ("text, without fields" if records_only else None)
    except DamagedError:
        return None


class _NoColumnError(Exception):
    """A table has no such column."""


def _lacks(path: Path, options: ReadOptions) -> str | None:
    """Returns what the beginning of a file of records lacks, None if it has all fields. Errors are left to reading."""

    def check(header: Sequence[str]) -> None:
        for name, column in options.columns_in(header):
            if column not in header:
                raise _NoColumnError(name)

    try:
        first = next(rows_of(DocumentReader(options), path, check), None)
        missing = [] if first is None else options.missing(first[1])
        return f"no field {missing[0]!r}" if missing else None
    except _NoColumnError as error:
        return f"no field {error.args[0]!r}"
    except UserError as error:
        if error.hint.startswith("Install"):
            raise
        # Most .json files are settings or hold other things than records.
        return "no records" if format_of(path) == ".json" else None


def _not_text(head: bytes, encoding: str) -> str | None:
    """Returns why the beginning of a file is not text in this encoding, None if it is."""
    if encoding_by_mark(head) is None:
        is_wide = encoding.startswith(("utf-16", "utf-32"))
        is_utf8 = is_encoded(head, "utf-8")
        has_controls = any(byte in head for byte in (_CONTROLS if not is_utf8 else b"\0"))
        if head.startswith(_PDF) or (has_controls and not is_wide):
            return "binary"
    found = encoding_of(head, encoding)
    if found is None:
        return "encoding not recognised"
    return None if is_encoded(head, found) else _NOT + found
