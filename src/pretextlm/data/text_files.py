"""Documents of text files: the file in pieces of bounded length, its paragraphs, or its lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from pretextlm.data.encodings import open_utf8
from pretextlm.data.tables import Rules, decoded_lines, place

TextMode = Literal["file", "paragraphs", "lines"]


def cut(document: str, longest: int) -> Iterator[str]:
    """Cut a document at blank lines if there are any, else at line ends, else at spaces.

    Yields:
        Pieces of at most `longest` characters whose concatenation is the document.
    """
    start = 0
    while len(document) - start > longest:
        stop = 0
        for separator in ("\n\n", "\n", " "):
            found = document.rfind(separator, start + longest // 2, start + longest - len(separator) + 1)
            if found >= 0:
                stop = found + len(separator)
                break
        stop = stop or start + longest
        yield document[start:stop]
        start = stop
    yield document[start:]


def read_text(path: Path, mode: TextMode, split_long: int, rules: Rules) -> Iterator[str]:
    """Yields the documents of a text file.

    Args:
        path: the file.
        mode: what one document is.
        split_long: a longer file is cut into pieces of a quarter of these characters; 0 never.
        rules: for bad lines.
    """
    with open_utf8(path, rules.encoding) as stream:
        lines = _text_lines(path, stream, rules)
        if mode == "file":
            yield from _whole_file(lines, split_long)
        else:
            yield from _paragraphs(lines) if mode == "paragraphs" else _single_lines(lines)


_NUL = "Is this a text file? Clean it. UTF-16 without a byte order mark: --encoding utf-16-le."


def _text_lines(path: Path, stream: BinaryIO, rules: Rules) -> Iterator[str | None]:
    for number, line in decoded_lines(path, stream, rules):
        if line is not None and "\0" in line:
            rules.bad(f"{place(path, number)}: the text holds a NUL character.", _NUL)
            yield None
        else:
            yield line


def _whole_file(lines: Iterator[str | None], longest: int) -> Iterator[str]:
    """Yield the file as one document; a long one is cut while it is read, so that memory is bounded."""
    parts: list[str] = []
    size, is_long = 0, False
    for line in lines:
        if line is None:
            return  # a bad line makes the document bad
        parts.append(line)
        size += len(line)
        if longest and size > longest:
            *whole, rest = cut("".join(parts), longest // 4)
            yield from whole
            parts, size, is_long = [rest], len(rest), True
    rest = "".join(parts)
    yield from cut(rest, longest // 4) if is_long else [rest]


def _paragraphs(lines: Iterator[str | None]) -> Iterator[str]:
    """Yield the paragraphs of a file. A document ends at a blank line and at a bad line."""
    parts: list[str] = []
    for line in lines:
        if line is not None and line.strip():
            parts.append(line)
        elif parts:
            yield "".join(parts).rstrip("\n")
            parts = []
    if parts:
        yield "".join(parts).rstrip("\n")


def _single_lines(lines: Iterator[str | None]) -> Iterator[str]:
    for line in lines:
        if line is not None:
            yield line.rstrip("\n")
