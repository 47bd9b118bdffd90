"""Documents from text, JSON lines, CSV, TSV and Parquet files; every error names its file and line.

A document is a text or, if two fields are named, a pair of texts: the source and the target of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pretextlm.data.streams import COMPRESSIONS, DamagedError, open_bytes
from pretextlm.data.tables import Row, Rules, decoded_lines, json_rows, parquet_rows, place, table_rows
from pretextlm.errors import UserError, did_you_mean

TextMode = Literal["file", "paragraphs", "lines"]
Document = str | tuple[str, str]
"""A text, or a (source, target) pair."""


def parts_of(document: Document) -> tuple[str, ...]:
    """Returns the one or two texts of a document."""
    return (document,) if isinstance(document, str) else document


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading sources.

    Attributes:
        field: name of the text field of a JSON line or of a row of a table or of the hub.
        text_mode: a document of a text file is the file, a paragraph (lines between blank lines) or a line.
        on_error: stop at a bad document, or skip and count it.
        max_document_bytes: a longer line (a JSON line, a row) is a bad document.
        split_long: longer documents are cut, at paragraphs, into pieces of a quarter of these characters; 0 never.
            Pairs are never cut.
        target: a second field; each record is then a pair whose source is `field`.
        prefix: put before the source of every pair, to name the task.
        labels: words for the targets 0, 1, … if the target is a number.
    """

    field: str = "text"
    text_mode: TextMode = "file"
    on_error: Literal["error", "skip"] = "error"
    max_document_bytes: int = 64 << 20
    split_long: int = 1 << 18
    target: str | None = None
    prefix: str = ""
    labels: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Returns the names of the one or two fields that are read."""
        return (self.field,) if self.target is None else (self.field, self.target)


@dataclass
class DocumentReader:
    """Reads files and counts the bad documents that it skips."""

    options: ReadOptions
    skipped: int = field(default=0)

    def read(self, path: Path) -> Iterator[Document]:
        """Yields the documents of one file, in the format given by its name.

        Raises:
            UserError: a document is bad and bad documents are not skipped.
        """
        yield from self.guard(FORMATS[format_of(path)](self, path))

    def guard(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Pass documents on. A source that fails midway counts as a bad document and ends there."""
        try:
            for document in documents:
                yield from self._pieces(document)
        except DamagedError:
            if self.options.on_error == "error":
                raise
            self.skipped += 1

    def _pieces(self, document: Document) -> Iterator[Document]:
        longest = self.options.split_long
        if not isinstance(document, str) or not longest or len(document) <= longest:
            yield document
        else:
            yield from cut(document, longest // 4)

    def bad(self, message: str, hint: str) -> None:
        """Count a bad document, or raise it as a UserError."""
        if self.options.on_error == "error":
            raise UserError(message, f"{hint} Or leave such documents out: --on-error skip.")
        self.skipped += 1

    def document_of(self, record: Mapping[str, Any], where: str) -> Document | None:
        """Extract the named fields of a record.

        A pair of which one text is blank is bad; if both are blank, it is an empty document.

        Returns:
            The document, or None if a field is bad.
        """
        for name in self.options.fields:
            if name not in record:
                self.bad(f"{where}: no field {name!r}.", f"{self.how} {did_you_mean(name, map(str, record))}")
                return None
        source = self.text_of(record[self.options.field], where, self.options.field)
        if self.options.target is None or source is None:
            return source
        value = record[self.options.target]
        if self.options.labels:
            target = self._label(value, where)
        else:
            target = self.text_of(value, where, self.options.target)
        if target is None:
            return None
        blank = [name for name, text in zip(self.options.fields, (source, target), strict=True) if not text.strip()]
        if len(blank) == 2:
            return "", ""
        if blank:
            self.bad(f"{where}: the field {blank[0]!r} is empty.", "A pair needs both texts: clean the source.")
            return None
        return self.options.prefix + source, target

    @property
    def how(self) -> str:
        """Returns the hint for a missing field."""
        return "Give --field." if self.options.target is None else "Name the fields: ?source=FIELD&target=FIELD."

    def _label(self, value: Any, where: str) -> str | None:
        """Returns the word for a numeric label, or None (already counted as bad) if there is none."""
        labels = self.options.labels
        number = int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else -1
        if 0 <= number < len(labels):
            return labels[number]
        known = f"0 … {len(labels) - 1}, for {', '.join(labels)}"
        self.bad(f"{where}: the field {self.options.target!r} is {value!r}, no label.", f"Labels are {known}.")
        return None

    def text_of(self, value: Any, where: str, name: str) -> str | None:
        """Returns the value of the field `name` as text, or None if it is bad."""
        if not isinstance(value, str):
            kind = "null" if value is None else type(value).__name__
            hint = "Give another --field." if self.options.target is None else "Give another field, or labels=A,B,…."
            self.bad(f"{where}: the field {name!r} is {kind}, not text.", hint)
        elif "\0" in value:
            self.bad(f"{where}: the text holds a NUL character.", "Clean the source.")
        elif not _encodes(value):
            self.bad(f"{where}: the text holds half a character (a lone surrogate).", "Clean the source.")
        elif len(value) > self.options.max_document_bytes:
            self.bad(f"{where}: the document has {len(value):,} characters.", "Raise --max-document-mb.")
        else:
            return value
        return None

    def rules(self, path: Path) -> Rules:
        """Returns the rules for reading the rows of a file."""
        return Rules(
            self.bad,
            self.options.max_document_bytes,
            lambda header: _check_columns(self, path, header),
            room="Raise --max-document-mb, or break the line.",
        )


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


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


def _read_text(reader: DocumentReader, path: Path) -> Iterator[str]:
    modes = {"file": _whole_file, "paragraphs": _paragraphs, "lines": _single_lines}
    with open_bytes(path) as stream:
        yield from modes[reader.options.text_mode](reader, _text_lines(reader, path, stream))


def _text_lines(reader: DocumentReader, path: Path, stream: BinaryIO) -> Iterator[str | None]:
    for number, line in decoded_lines(path, stream, reader.rules(path)):
        if line is not None and "\0" in line:
            reader.bad(f"{place(path, number)}: the text holds a NUL character.", "Is this a text file? Clean it.")
            yield None
        else:
            yield line


def _whole_file(reader: DocumentReader, lines: Iterator[str | None]) -> Iterator[str]:
    """Yield the file as one document; a long one is cut while it is read, so that memory is bounded."""
    longest = reader.options.split_long
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


def _paragraphs(reader: DocumentReader, lines: Iterator[str | None]) -> Iterator[str]:
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


def _single_lines(reader: DocumentReader, lines: Iterator[str | None]) -> Iterator[str]:
    for line in lines:
        if line is not None:
            yield line.rstrip("\n")


def _documents(reader: DocumentReader, path: Path, rows: Iterator[Row]) -> Iterator[Document]:
    for number, values in rows:
        if (document := reader.document_of(values, place(path, number))) is not None:
            yield document


def _read_json_lines(reader: DocumentReader, path: Path) -> Iterator[Document]:
    yield from _documents(reader, path, json_rows(path, reader.rules(path)))


def _read_table(reader: DocumentReader, path: Path) -> Iterator[Document]:
    rows = table_rows(path, reader.rules(path), tabs=format_of(path) == ".tsv")
    yield from _documents(reader, path, rows)


def _check_columns(reader: DocumentReader, path: Path, header: Sequence[str]) -> None:
    """Check that each named field is exactly one column of a table.

    Raises:
        UserError: a column is missing or occurs twice.
    """
    for name in reader.options.fields:
        if name not in header:
            raise UserError(f"{path} has no column {name!r}.", f"{reader.how} {did_you_mean(name, header)}")
        if header.count(name) > 1:
            raise UserError(f"{path} has {header.count(name)} columns {name!r}.", "Give each column its own name.")


def _read_parquet(reader: DocumentReader, path: Path) -> Iterator[Document]:
    yield from _documents(reader, path, parquet_rows(path, reader.rules(path), reader.options.fields))


FORMATS: dict[str, Callable[[DocumentReader, Path], Iterator[Document]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".csv": _read_table,
    ".tsv": _read_table,
    ".parquet": _read_parquet,
}


def format_of(path: Path, also: tuple[str, ...] = (".md", ".rst", ".py")) -> str:
    """Returns the key of FORMATS for a file name; `also` are further extensions of text files.

    Raises:
        UserError: the format is unknown.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last in also:
        return ".txt"
    if last not in FORMATS or (last == ".parquet" and path.suffix.lower() != ".parquet"):
        raise UserError(
            f"{path}: pretextlm does not read this kind of file.",
            "It reads .txt, .jsonl, .csv, .tsv (also .gz, .zst) and .parquet, and directories of them.",
        )
    return last
