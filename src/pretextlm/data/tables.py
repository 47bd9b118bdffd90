"""Rows of JSON, JSON lines, CSV, TSV, Parquet and CoNLL files as values by column name, each with its row number.

The caller decides about bad rows: `Rules.bad` raises, or counts the row and returns, and reading continues.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pretextlm.data.encodings import UTF8, likely, open_utf8
from pretextlm.data.streams import DamagedError, lines
from pretextlm.errors import missing_extra
from pretextlm.file_names import suffix_of
from pretextlm.plain_files import open_plain

Row = tuple[int, Mapping[str, Any]]
"""(number of the line, or of the row of Parquet or the record of JSON, from 1; values by column name)."""

MAX_JSON_BYTES = 256 << 20
"""A .json file is read at once."""


@dataclass(frozen=True)
class Rules:
    """Rules for reading rows.

    Attributes:
        bad: called with (message, hint) of a bad row: raises, or returns to skip the row.
        limit: maximum bytes of a line.
        check: called once with the column names of a table (not of JSON lines, whose rows may differ).
        room: hint for a line that is too long.
        encoding: of files without a byte order mark, or "auto".
        recode: hint for bytes that are not UTF-8.
    """

    bad: Callable[[str, str], None]
    limit: int
    check: Callable[[Sequence[str]], None]
    room: str = "Break the line."
    encoding: str = UTF8
    recode: str = "Convert the file to UTF-8."


def place(path: Path, number: int) -> str:
    """Returns the location of a row for messages."""
    return f"{path}, { {'.parquet': 'row', '.json': 'record'}.get(suffix_of(path), 'line') } {number}"


def look_up(row: Mapping[str, Any], column: str) -> Any:
    """Returns the value of a column; "A.B" is the field B of the column A, or a list of that of each of its objects.

    Raises:
        KeyError: there is no such field.
    """
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if isinstance(value, list) and value and all(isinstance(one, Mapping) and part in one for one in value):
            value = [one[part] for one in value]
        elif isinstance(value, Mapping) and part in value:
            value = value[part]
        elif value != []:
            raise KeyError(column)
    return value


def decoded_lines(
    path: Path, stream: BinaryIO, rules: Rules, keep_ends: bool = False
) -> Iterator[tuple[int, str | None]]:
    """Yields (number, line) of a UTF-8 file; None for a bad line, which was already reported.

    A line ends in one newline or, with `keep_ends`, as in the file.
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
            what = f"{place(path, number)}: byte {error.start + 1} is not UTF-8."
            rules.bad(what, likely(line) + rules.recode)
            yield number, None
            continue
        if not keep_ends and text.endswith("\r\n"):
            text = text[:-2] + "\n"
        yield number, text


def json_rows(path: Path, rules: Rules) -> Iterator[Row]:
    """Yields one JSON object per line; blank lines are skipped."""
    with open_utf8(path, rules.encoding) as stream:
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


def json_value(path: Path, rules: Rules) -> Any:
    """Returns the value that a JSON file holds.

    Raises:
        DamagedError: it is no JSON, or too large.
    """
    with open_utf8(path, rules.encoding) as stream:
        data = stream.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise DamagedError(f"{path} has more than {MAX_JSON_BYTES >> 20} MB.", "Write it as JSON lines (.jsonl).")
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        what = f"{path}: byte {error.start + 1:,} is not UTF-8."
        raise DamagedError(what, likely(data[error.start :]) + rules.recode) from None
    except (ValueError, RecursionError) as error:
        kind = _SeveralValuesError if str(error).startswith("Extra data") else DamagedError
        raise kind(f"{path}: not JSON ({error or 'nested too deeply'}).", "Correct the file.") from None


class _SeveralValuesError(DamagedError):
    """A file with more than one JSON value."""


def json_file_rows(path: Path, rules: Rules, fields: Sequence[str]) -> Iterator[Row]:
    """Yields the objects of a JSON file: of an array, or of the only list of objects in an object.

    Any other object, or one that itself has one of the `fields`, is one record. JSON lines are also read.
    """
    try:
        values = json_value(path, rules)
    except _SeveralValuesError:
        yield from json_rows(path, rules)
        return
    if isinstance(values, dict):
        lists = [one for one in values.values() if _is_of_objects(one)]
        values = lists[0] if len(lists) == 1 and not any(name in values for name in fields) else [values]
    if not isinstance(values, list):
        raise DamagedError(f"{path} holds no records.", "A .json file is an array of objects, or an object with one.")
    for number, record in enumerate(values, 1):
        if isinstance(record, dict):
            yield number, record
        else:
            rules.bad(f"{place(path, number)}: {type(record).__name__}, not an object.", "Give each record its fields.")


def _is_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key occurs twice")
    return values


def table_rows(
    path: Path, rules: Rules, tabs: bool, quotes: bool | None = None, columns: Sequence[str] = ()
) -> Iterator[Row]:
    """Yields the rows of CSV with a header (RFC 4180) or, with `tabs`, of TSV.

    Args:
        path: the file.
        rules: for bad rows.
        tabs: whether columns are separated by tabs.
        quotes: whether quotation marks enclose texts, and are no part of them; by default in CSV only.
        columns: names of the columns of a file without a header.
    """
    csv.field_size_limit(max(csv.field_size_limit(), rules.limit))
    numbers: list[int] = []  # of the lines of the row being read

    def numbered(stream: BinaryIO) -> Iterator[str]:
        # A line end within quotes is part of a text, in which other columns may count characters.
        for number, line in decoded_lines(path, stream, rules, keep_ends=True):
            if line is not None:
                numbers.append(number)
                yield line

    with open_utf8(path, rules.encoding) as stream:
        dialect = csv.excel_tab() if tabs else csv.excel()
        dialect.strict = True
        dialect.quoting = csv.QUOTE_MINIMAL if (not tabs if quotes is None else quotes) else csv.QUOTE_NONE
        rows = csv.reader(numbered(stream), dialect)
        header = [*columns]
        if header:
            rules.check(header)
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
            if not header:
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
        open_plain(path).close()
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


def conll_rows(path: Path, rules: Rules, names: Sequence[str] = (), tabs: bool = False) -> Iterator[Row]:
    """Yield the sentences of a CoNLL file: one token with its tags per line, a blank line after each sentence.

    Columns are separated by tabs, or by spaces in lines without a tab, so that a token may itself be a space. They are
    called by `names`, or "1", "2", … Before a sentence, lines that begin with "# " or "## " are comments, and
    "-DOCSTART-" is skipped. With `tabs`, columns are separated by tabs only, and any line that begins with "#" and has
    none is a comment.

    Yields:
        The line number and lists of equal length by column name.
    """
    tokens: list[list[str]] = []
    start, width, is_good = 0, len(names), True
    with open_utf8(path, rules.encoding) as stream:
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
            is_comment = line.startswith(("# ", "## ", "-DOCSTART-"))
            if not tokens and (is_comment or (tabs and line[0] == "#" and "\t" not in line)):
                if not tabs and "\t" not in line and line.startswith("#") and len(line.split()) == width:
                    what = f"{place(path, number)}: a comment, or a token {line.split()[0]!r}? It could be either."
                    rules.bad(what, "Separate columns by tabs: '# ' at the beginning of a sentence is then a comment.")
                    is_good = False
                continue
            fields = line.split("\t") if tabs or "\t" in line else line.split()
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
