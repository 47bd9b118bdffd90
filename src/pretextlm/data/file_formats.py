"""Documents from text, JSON, JSON lines, CSV, TSV and Parquet files; every error names its file and line.

A document is a text or, if two fields are named, a pair of texts: the source and the target of a task.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pretextlm.data.encodings import HOW, UTF8
from pretextlm.data.streams import DamagedError
from pretextlm.data.tables import (
    Row,
    Rules,
    json_file_rows,
    json_rows,
    look_up,
    parquet_rows,
    place,
    table_rows,
)
from pretextlm.data.text_files import TextMode, cut, read_text
from pretextlm.errors import UserError, did_you_mean
from pretextlm.file_names import compression_of, suffix_of

Document = str | tuple[str, str]
"""A text, or a (source, target) pair."""

BETWEEN_FIELDS = "\n\n"
BETWEEN_ITEMS = "\n"


def parts_of(document: Document) -> tuple[str, ...]:
    """Returns the one or two texts of a document."""
    return (document,) if isinstance(document, str) else document


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading sources.

    Attributes:
        field: name of the text field of a JSON line or of a row of a table or of the hub. "A.B" is the field B of the
            field A; several names, separated by commas, are joined with a blank line between their texts, those without
            text left out; the items of a list are joined, each on a line.
        text_mode: a document of a text file is the file, a paragraph (lines between blank lines) or a line.
        on_error: stop at a bad document, or skip and count it.
        max_document_bytes: a longer line (a JSON line, a row) is a bad document.
        split_long: longer documents are cut, at paragraphs, into pieces of a quarter of these characters; 0 never.
            Pairs are never cut.
        target: a second field; each record is then a pair whose source is `field`.
        prefix: put before the source of every pair, to name the task.
        labels: words for the targets 0, 1, … if the target is a number.
        encoding: of text files without a byte order mark, or "auto" to recognise it.
    """

    field: str = "text"
    text_mode: TextMode = "file"
    on_error: Literal["error", "skip"] = "error"
    max_document_bytes: int = 64 << 20
    split_long: int = 1 << 18
    target: str | None = None
    prefix: str = ""
    labels: tuple[str, ...] = ()
    encoding: str = UTF8

    @property
    def fields(self) -> tuple[str, ...]:
        """Returns the names of the one or two fields that are read."""
        return (self.field,) if self.target is None else (self.field, self.target)

    @property
    def columns(self) -> list[str]:
        """Returns every name under which a table may hold what is read: "a.b" may be a column, or a field of "a"."""
        names = {part for name in self.fields for part in (name, *name.split(","))}
        return sorted(names | {name.split(".")[0] for name in names})

    def columns_in(self, header: Sequence[str]) -> list[tuple[str, str]]:
        """Returns (name, column of the header in which to look for it) of each named field."""
        names = [one for name in self.fields for one in names_in(name, header)]
        return [(name, name if name in header else name.split(".")[0]) for name in names]

    def missing(self, record: Mapping[str, Any]) -> list[str]:
        """Returns the named fields that a record lacks."""
        return [one for name in self.fields for one in names_in(name, record) if not _has(record, one)]


def names_in(field: str, columns: Container[str]) -> list[str]:
    """Returns the names that a field lists: one, or several separated by commas, unless a column is called so."""
    return [field] if field in columns else field.split(",")


def _has(record: Mapping[str, Any], name: str) -> bool:
    try:
        look_up(record, name)
    except KeyError:
        return False
    return True


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
        if format_of(path) != ".txt":
            yield from self.guard(self._records(path))
        else:
            options = self.options
            yield from self.guard(read_text(path, options.text_mode, options.split_long, self.rules(path)))

    def _records(self, path: Path) -> Iterator[Document]:
        for number, values in rows_of(self, path):
            if (document := self.document_of(values, place(path, number))) is not None:
                yield document

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
        if missing := self.options.missing(record):
            self.bad(f"{where}: no field {missing[0]!r}.", f"{self.how} {did_you_mean(missing[0], map(str, record))}")
            return None
        source = self._text(record, self.options.field, where)
        if self.options.target is None or source is None:
            return source
        if self.options.labels:
            target = self._label(look_up(record, self.options.target), where)
        else:
            target = self._text(record, self.options.target, where)
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

    def _text(self, record: Mapping[str, Any], name: str, where: str) -> str | None:
        """Returns the text of a field, or of several that are joined; None if one of them is bad."""
        values = {one: look_up(record, one) for one in names_in(name, record)}
        if len(values) > 1:
            values = {one: value for one, value in values.items() if value not in (None, "", [])}
        texts = [self.text_of(value, where, one) for one, value in values.items()]
        return None if None in texts else BETWEEN_FIELDS.join(text for text in texts if text is not None)

    def text_of(self, value: Any, where: str, name: str) -> str | None:
        """Returns the value of the field `name` as text, the items of a list joined; None if it is bad."""
        if isinstance(value, list):
            items = [self.text_of(item, where, name) for item in value]
            return None if None in items else BETWEEN_ITEMS.join(item for item in items if item is not None)
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
            encoding=self.options.encoding,
            recode=HOW,
        )


def _encodes(value: str) -> bool:
    try:
        for start in range(0, len(value), 1 << 20):  # a piece at a time: a long text is in memory once
            value[start : start + (1 << 20)].encode()
    except UnicodeEncodeError:
        return False
    return True


def rows_of(reader: DocumentReader, path: Path, check: Callable[[Sequence[str]], None] | None = None) -> Iterator[Row]:
    """Returns the records of a file that is not a text; `check` is called with the columns of a table."""
    rules = reader.rules(path)
    if check is not None:
        rules = replace(rules, check=check)
    kind = format_of(path)
    if kind == ".jsonl":
        return json_rows(path, rules)
    if kind == ".json":
        return json_file_rows(path, rules, reader.options.columns)
    if kind == ".parquet":
        return parquet_rows(path, rules, reader.options.columns)
    return table_rows(path, rules, tabs=kind == ".tsv")


def _check_columns(reader: DocumentReader, path: Path, header: Sequence[str]) -> None:
    """Check that each named field is exactly one column of a table.

    Raises:
        UserError: a column is missing or occurs twice.
    """
    for name, column in reader.options.columns_in(header):
        if column not in header:
            raise UserError(f"{path} has no column {name!r}.", f"{reader.how} {did_you_mean(name, header)}")
        if header.count(column) > 1:
            raise UserError(f"{path} has {header.count(column)} columns {column!r}.", "Give each column its own name.")


RECORDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
"""Files of records; all others are texts."""


def format_of(path: Path) -> str:
    """Returns the kind of a file by its name: one of RECORDS, or ".txt"."""
    suffix = suffix_of(path)
    is_compressed_parquet = suffix == ".parquet" and bool(compression_of(path))
    return suffix if suffix in RECORDS and not is_compressed_parquet else ".txt"
