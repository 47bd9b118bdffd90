"""Documents of text files: the file in pieces of bounded length, its paragraphs, or its lines."""

from __future__ import annotations

import io
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
            yield from _whole_file(lines, split_long, _Document(path, rules))
        else:
            yield from _paragraphs(lines, _Document(path, rules)) if mode == "paragraphs" else _single_lines(lines)


_NUL = "Is this a text file? Clean it. UTF-16 without a byte order mark: --encoding utf-16-le."


def _text_lines(path: Path, stream: BinaryIO, rules: Rules) -> Iterator[str | None]:
    for number, line in decoded_lines(path, stream, rules):
        if line is not None and "\0" in line:
            rules.bad(f"{place(path, number)}: the text holds a NUL character.", _NUL)
            yield None
        else:
            yield line


class _Document:
    """Text that is put together of lines, in memory of its own size however short they are.

    Attributes:
        is_bad: it became longer than a document may be, which was reported; the text is dropped.
    """

    def __init__(self, path: Path, rules: Rules) -> None:
        self._path, self._rules = path, rules
        self.clear()

    def clear(self, text: str = "") -> None:
        self._text, self.is_bad = io.StringIO(newline=""), False
        self.size = self._text.write(text)

    def add(self, line: str) -> None:
        if self.is_bad:
            return
        self.size += self._text.write(line)
        if self.size > self._rules.limit:
            self.clear()
            self.is_bad = True
            what = f"{self._path}: a document of more than {self._rules.limit:,} characters."
            self._rules.bad(what, "Raise --max-document-mb, or cut it: --text-mode, --split-long.")

    def text(self) -> str:
        return self._text.getvalue()


def _whole_file(lines: Iterator[str | None], longest: int, document: _Document) -> Iterator[str]:
    """Yield the file as one document; a long one is cut while it is read, so that memory is bounded."""
    is_long = False
    for line in lines:
        if line is None:
            return  # a bad line makes the document bad
        document.add(line)
        if document.is_bad:
            return
        if longest and document.size > longest:
            *whole, rest = cut(document.text(), longest // 4)
            yield from whole
            document.clear(rest)
            is_long = True
    yield from cut(document.text(), longest // 4) if is_long else [document.text()]


def _paragraphs(lines: Iterator[str | None], document: _Document) -> Iterator[str]:
    """Yield the paragraphs of a file. A document ends at a blank line and at a bad line."""
    for line in lines:
        if line is not None and line.strip():
            document.add(line)
            continue
        if document.size:
            yield document.text().rstrip("\n")
        document.clear()
    if document.size:
        yield document.text().rstrip("\n")


def _single_lines(lines: Iterator[str | None]) -> Iterator[str]:
    for line in lines:
        if line is not None:
            yield line.rstrip("\n")
