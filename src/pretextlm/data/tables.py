"""Rows of JSON lines, CSV, TSV, Parquet and CoNLL files as values by column name, each with its row number.

The caller decides about bad rows: `Rules.bad` raises, or counts the row and returns, and reading continues.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pretextlm.data.streams import DamagedError, lines, open_bytes
from pretextlm.errors import missing_extra

Row = tuple[int, Mapping[str, Any]]
"""(line or Parquet row number from 1, values by column name)."""


@dataclass(frozen=True)
class Rules:
    """Rules for reading rows.

    Attributes:
        bad: called with (message, hint) of a bad row: raises, or returns to skip the row.
        limit: maximum bytes of a line.
        check: called once with the column names of a table (not of JSON lines, whose rows may differ).
        room: hint for a line that is too long.
    """

    bad: Callable[[str, str], None]
    limit: int
    check: Callable[[Sequence[str]], None]
    room: str = "Break the line."


def place(path: Path, number: int) -> str:
    """Returns the location of a row for messages."""
    return f"{path}, {'row' if path.suffix.lower() == '.parquet' else 'line'} {number}"


def decoded_lines(path: Path, stream: BinaryIO, rules: Rules) -> Iterator[tuple[int, str | None]]:
    """Yields (number, line) of a UTF-8 file, line ends as one newline; None for a bad line, which was already
    reported.
    """
    for number, line in lines(stream, rules.limit):
        if line is None:
            rules.bad(f"{place(path, number)}: longer than {rules.limit:,} bytes.", rules.room)
            yield number, None
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            rules.bad(f"{place(path, number)}: byte {error.start + 1} is not UTF-8.", "Convert the file to UTF-8.")
            yield number, None
            continue
        if text.endswith("\r\n"):
            text = text[:-2] + "\n"
        yield number, text


def json_rows(path: Path, rules: Rules) -> Iterator[Row]:
    """Yields one JSON object per line; blank lines are skipped."""
    with open_bytes(path) as stream:
        for number, line in decoded_lines(path, stream, rules):
            if line is None or not line.strip():
                continue
            where = place(path, number)
            try:
                values = json.loads(line, object_pairs_hook=_unique)
            except (ValueError, RecursionError) as error:
                rules.bad(f"{where}: not JSON ({error or 'nested too deeply'}).", "Write one JSON object a line.")
                continue
            if isinstance(values, dict):
                yield number, values
            else:
                rules.bad(f"{where}: {type(values).__name__}, not an object.", "Write one JSON object a line.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values


def table_rows(path: Path, rules: Rules, tabs: bool) -> Iterator[Row]:
    """Yields the rows of CSV with a header (RFC 4180) or, with `tabs`, of TSV, in which quotation marks are plain
    text.
    """
    csv.field_size_limit(max(csv.field_size_limit(), rules.limit))
    numbers: list[int] = []  # of the lines of the row being read

    def numbered(stream: BinaryIO) -> Iterator[str]:
        for number, line in decoded_lines(path, stream, rules):
            if line is not None:
                numbers.append(number)
                yield line

    with open_bytes(path) as stream:
        if tabs:
            rows = csv.reader(numbered(stream), delimiter="\t", quoting=csv.QUOTE_NONE, strict=True)
        else:
            rows = csv.reader(numbered(stream), strict=True)
        header: list[str] | None = None
        while True:
            numbers.clear()
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                where = place(path, numbers[0]) if numbers else path
                rules.bad(f"{where}: {error}.", "Write it as CSV, texts in double quotes.")
                continue
            if not row:
                continue
            if header is None:
                header = row
                rules.check(header)
            elif len(row) != len(header):
                what = f"{place(path, numbers[0])}: {len(row)} fields, the header has {len(header)}."
                rules.bad(what, "Quote fields that hold separators.")
            else:
                yield numbers[0], dict(zip(header, row, strict=True))


def parquet_rows(path: Path, rules: Rules, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a Parquet file; only `columns` are read."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise missing_extra("pyarrow", "data", "Reading .parquet files") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            rules.check(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=256, columns=list(columns)):
                for values in batch.to_pylist():
                    number += 1
                    yield number, values
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        what = f"{path}, after row {number}: damaged or not Parquet: {reason}."
        raise DamagedError(what, "Fetch the file again.") from None


def conll_rows(path: Path, rules: Rules, names: Sequence[str] = ()) -> Iterator[Row]:
    """Yield the sentences of a CoNLL file: one token with its tags per line, a blank line after each sentence.

    Columns are separated by tabs, or by spaces in lines without a tab, so that a token may itself be a space. They are
    called by `names`, or "1", "2", … Before a sentence, lines that begin with "# " or "## " are comments, and
    "-DOCSTART-" is skipped.

    Yields:
        The line number and lists of equal length by column name.
    """
    tokens: list[list[str]] = []
    start, width, is_good = 0, len(names), True
    with open_bytes(path) as stream:
        for number, line in decoded_lines(path, stream, rules):
            if line is None:
                is_good = False
                continue
            line = line.rstrip("\n")
            if not line.strip():
                if tokens and is_good:
                    yield start, _columns(tokens, names)
                tokens, is_good = [], True
                continue
            if not tokens and line.startswith(("# ", "## ", "-DOCSTART-")):
                if "\t" not in line and line.startswith("#") and len(line.split()) == width:
                    what = f"{place(path, number)}: a comment, or a token {line.split()[0]!r}? It could be either."
                    rules.bad(what, "Separate columns by tabs: '# ' at the beginning of a sentence is then a comment.")
                    is_good = False
                continue
            fields = line.split("\t") if "\t" in line else line.split()
            if not width:
                width = len(fields)
                rules.check([str(n + 1) for n in range(width)])
            if not tokens:
                start = number
            tokens.append(fields)
            if is_good and len(fields) != width:
                what = f"{place(path, number)}: {len(fields)} columns, not {width}."
                rules.bad(what, "Write a token and its tags a line, and a blank line after each sentence.")
                is_good = False
            elif is_good and not all(fields):
                rules.bad(f"{place(path, number)}: column {fields.index('') + 1} is empty.", "Give each token its tag.")
                is_good = False
    if tokens and is_good:
        yield start, _columns(tokens, names)


def _columns(tokens: list[list[str]], names: Sequence[str]) -> dict[str, list[str]]:
    called = names or [str(n + 1) for n in range(len(tokens[0]))]
    return {name: list(column) for name, column in zip(called, zip(*tokens, strict=True), strict=True)}
