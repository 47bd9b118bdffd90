"""Rows of JSON, JSON lines, CSV, TSV, Parquet and CoNLL files as values by column name, each with its row number.

The caller decides about bad rows: `Rules.bad` raises, or counts the row and returns, and reading continues.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pretextlm.data.encodings import UTF8, likely, open_utf8
from pretextlm.data.streams import MOST_EXPANSION, SMALL, DamagedError, lines
from pretextlm.errors import missing_extra
from pretextlm.file_names import suffix_of
from pretextlm.plain_files import open_plain

Row = tuple[int, Mapping[str, Any]]
"""(number of the line, or of the row of Parquet or the record of JSON, from 1; values by column name)."""

MAX_JSON_BYTES = 256 << 20
"""A .json file is read at once."""
MAX_VALUES = 4_000_000
"""Values in one JSON text, or fields in a row of a table: each takes some 60 bytes, however short it is."""
MAX_COLUMNS = 100_000
SMALLEST_ROW_LIMIT = 1 << 17
"""Characters that a row of a table may have under any limit of a document."""
ROWS_BYTES = 16 << 20
"""Bytes of the rows of a Parquet file that are Python's objects at a time."""
SHARED_BYTES = 1 << 20
"""Longest text that may be written as often as rows share it: writers share no longer ones."""
MOST_SHARED = 1 << 30
"""Bytes of the texts of a Parquet file, or so many times its size: texts that rows share are stored once."""
MOST_ROWS = 10_000
"""Rows of a Parquet file per byte of it."""


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
        held = [_decoded(path, number, line, rules, keep_ends)]
        del line
        yield number, held.pop()  # not kept here: a long line is in memory once


def _decoded(path: Path, number: int, line: bytes | None, rules: Rules, keep_ends: bool) -> str | None:
    """Returns a line as text; None if it is bad."""
    if line is None:
        rules.bad(f"{place(path, number)}: longer than {rules.limit:,} bytes.", rules.room)
        return None
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        rules.bad(f"{place(path, number)}: byte {error.start + 1} is not UTF-8.", likely(line) + rules.recode)
        return None
    return text[:-2] + "\n" if not keep_ends and text.endswith("\r\n") else text


def json_rows(path: Path, rules: Rules) -> Iterator[Row]:
    """Yields one JSON object per line; blank lines are skipped."""
    with open_utf8(path, rules.encoding) as stream:
        for number, line in decoded_lines(path, stream, rules):
            if line is None or line.isspace():
                continue
            where = place(path, number)
            try:
                values = parsed(line)
            except (ValueError, RecursionError) as error:
                rules.bad(f"{where}: not JSON ({error or 'nested too deeply'}).", "Write one JSON object a line.")
                continue
            del line
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
        return parsed(data.decode("utf-8-sig"))
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


def parsed(text: str) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: it is not JSON, a key occurs twice, or it has more than `MAX_VALUES` values.
        RecursionError: it is nested too deeply.
    """
    if len(text) > MAX_VALUES and _values(text) > max(
        MAX_VALUES, len(text) // 8
    ):  # prose and code have far fewer commas and braces
        raise ValueError(f"more than {MAX_VALUES:,} values in one record")
    return json.loads(text, object_pairs_hook=_unique)


def _values(text: str) -> int:
    """Returns about how many values a JSON text has, an object as four: by its punctuation, also in strings."""
    return text.count(",") + text.count("[") + 4 * text.count("{")


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
    # The limit of the module csv is of the process; that of this file is not.
    most = max(SMALLEST_ROW_LIMIT, rules.limit)
    csv.field_size_limit(max(csv.field_size_limit(), most))
    first, size = 0, 0  # number of the first line of the row being read, and its characters

    def numbered(stream: BinaryIO) -> Iterator[str]:
        nonlocal first, size
        # A line end within quotes is part of a text, in which other columns may count characters.
        for number, line in decoded_lines(path, stream, rules, keep_ends=True):
            if line is None:
                continue
            if len(line) > MAX_VALUES and line.count("\t" if tabs else ",") > MAX_VALUES:
                rules.bad(f"{place(path, number)}: more than {MAX_VALUES:,} fields.", "Is this a table?")
                continue
            size += len(line)
            if size > most + len(line):
                what = f"{place(path, first)}: a row longer than {rules.limit:,} characters."
                raise DamagedError(what, "Is a quotation mark missing? " + rules.room)
            first = first or number
            held = [line]
            del line
            yield held.pop()

    with open_utf8(path, rules.encoding) as stream:
        dialect = csv.excel_tab() if tabs else csv.excel()
        dialect.strict = True
        dialect.quoting = csv.QUOTE_MINIMAL if (not tabs if quotes is None else quotes) else csv.QUOTE_NONE
        rows = csv.reader(numbered(stream), dialect)
        header = [*columns]
        if header:
            rules.check(header)
        while True:
            first, size = 0, 0
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                where = place(path, first) if first else path
                rules.bad(f"{where}: {error}.", "Write it as CSV, texts in double quotes.")
                continue
            if not row:
                continue
            if not header:
                header = row
                if len(header) > MAX_COLUMNS:
                    what = f"{place(path, first)}: {len(header):,} columns; at most {MAX_COLUMNS:,} are read."
                    raise DamagedError(what, "Is this a table?")
                rules.check(header)
            elif len(row) != len(header):
                what = f"{place(path, first)}: {len(row)} fields, the header has {len(header)}."
                rules.bad(what, "Quote fields that hold separators.")
            else:
                yield first, dict(zip(header, row, strict=True))


def parquet_rows(path: Path, rules: Rules, columns: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of a Parquet file; only `columns` are read."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise missing_extra("pyarrow", "data", "Reading .parquet files") from None
    number, total = 0, 0
    try:
        with open_plain(path) as plain:
            stored = os.fstat(plain.fileno()).st_size
        with parquet.ParquetFile(path) as file:
            rules.check(file.schema_arrow.names)
            # A text that many rows share stays one text: written densely, a few kilobytes may become gigabytes.
            texts = _text_columns(path, file, columns)
        with parquet.ParquetFile(path, read_dictionary=texts) as file:
            shares = any(_dense_bytes(column) > SHARED_BYTES for column in _first_rows(file, columns))
        with parquet.ParquetFile(path, read_dictionary=texts if shares else None) as file:
            for batch in file.iter_batches(batch_size=256, columns=list(columns)):
                dense = sum(_dense_bytes(column) for column in batch.columns)
                total += dense
                if total > max(MOST_SHARED, MOST_EXPANSION * stored):
                    what = f"{path}, after row {number}: its repeated texts fill more than {total >> 20:,} MB."
                    raise DamagedError(what, f"The file has {stored:,} bytes: it is made to fill the memory.")
                rows = max(1, min(len(batch), ROWS_BYTES * len(batch) // max(1, dense)))
                for start in range(0, len(batch), rows):
                    for values in batch.slice(start, rows).to_pylist():
                        number += 1
                        yield number, values
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        what = f"{path}, after row {number}: damaged or not Parquet: {reason}."
        raise DamagedError(what, "Fetch the file again.") from None


def _text_columns(path: Path, file: Any, columns: Sequence[str]) -> list[str]:
    """Returns the names of all texts within `columns` of an open Parquet file.

    Raises:
        DamagedError: a column becomes out of all proportion to the file's size, as its metadata say: no page of it is
            then decompressed.
    """
    metadata, stored, found = file.metadata, max(1, path.stat().st_size), set()
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for column in map(row_group.column, range(row_group.num_columns)):
            if column.path_in_schema.split(".")[0] not in {name.split(".")[0] for name in columns}:
                continue
            size, values = column.total_uncompressed_size, column.num_values
            small = max(1, min(stored, column.total_compressed_size))
            if size > max(SMALL, MOST_EXPANSION * small) or (values > MAX_VALUES and values > MOST_ROWS * stored):
                what = f"{path}: {column.path_in_schema!r} becomes {size:,} bytes, {values:,} values."
                raise DamagedError(what, f"The file has {stored:,} bytes: it is damaged, or made to fill the memory.")
            if column.physical_type == "BYTE_ARRAY":
                found.add(column.path_in_schema)
    return sorted(found)


def _first_rows(file: Any, columns: Sequence[str]) -> Iterator[Any]:
    """Yields the columns of the first row of each row group that may share a long text."""
    for group in range(file.metadata.num_row_groups):
        if file.metadata.row_group(group).total_byte_size > SHARED_BYTES:
            for batch in file.iter_batches(batch_size=1, row_groups=[group], columns=list(columns)):
                yield from batch.columns
                break


def _dense_bytes(array: Any) -> int:
    """Returns the bytes of a column's values at most, each text that rows share counted as often as it occurs."""
    import pyarrow as arrow
    import pyarrow.compute as compute

    if arrow.types.is_dictionary(array.type):
        return len(array) * (compute.max(compute.binary_length(array.dictionary)).as_py() or 0)
    if arrow.types.is_struct(array.type):
        return sum(_dense_bytes(array.field(index)) for index in range(array.type.num_fields))
    if arrow.types.is_list(array.type) or arrow.types.is_large_list(array.type):
        return _dense_bytes(array.flatten())
    return int(array.nbytes)


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
