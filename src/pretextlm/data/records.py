"""Labelled records as columns of plain values; each record keeps its row number, so that an error can name it.

    read_records("sst2/train.jsonl.gz", {"text": "sentence", "label": "label"})     .jsonl .csv .tsv .parquet, .gz .zst
    read_records("squad.jsonl", {"answers": "answers.text"})                         a field within a field
    read_records("ner.conll", {"words": "1", "tags": "4"})                           one token a line: columns by number
    read_records("klue.tsv?conll=char,tag", {"words": "char", "tags": "tag"})        … or by the names given to them
    read_records("train-v2.0.json?form=squad", {"question": "question"})             as the owner wrote it (data/forms)
    read_records("hf:nyu-mll/glue/sst2:train", {"text": "sentence"})                 as `data prepare` names datasets
    read_records("hf:nyu-mll/glue:sst2?split=validation", {"text": "sentence"})      the same with the split named

The caller names the columns; nothing is guessed. All records are read into memory. The values of a column are checked
by the method that returns it (`texts`, `words`, `numbers`, `labels` …), which names the first bad row.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pretextlm.data.file_formats import format_of
from pretextlm.data.forms.registry import form_named
from pretextlm.data.sources import hub_parts, hub_rows, open_hub
from pretextlm.data.store import sha256_of
from pretextlm.data.tables import (
    Row,
    Rules,
    conll_rows,
    json_file_rows,
    json_rows,
    look_up,
    parquet_rows,
    place,
    table_rows,
)
from pretextlm.errors import UserError, did_you_mean
from pretextlm.file_names import suffix_of

Label = str | int | bool
Progress = Callable[[int], None]
"""Called with the number of rows read so far."""

LONGEST_ROW = 64 << 20
SKIP = 'Leave such rows out: data.on_error="skip".'
OnError = Literal["error", "skip"]
QUIET = 2.0  # seconds before progress is told
EVERY = 0.25  # seconds between two calls
_WHOLE = re.compile(r"[-+]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True)
class Records:
    """Records of one file.

    Attributes:
        columns: caller's name → value of each record.
        names: caller's name → name of the column in the file.
        rows: (N,) row number of each record: the line of a text file, the row of Parquet or of the hub, from 1.
        source: as the user gave it.
        sha256, bytes: of the file on disk; for the hub, of the values read, as JSON lines.
        unlabelled: their answers are to be predicted; a text may then be blank.
        skipped: number of rows that were left out because they are bad or empty.
    """

    columns: dict[str, list[Any]]
    names: dict[str, str]
    rows: NDArray[np.int64]
    source: str
    sha256: str
    bytes: int
    unlabelled: bool = False
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: ArrayLike) -> Records:
        """Returns the records at `indices`, in that order; they keep their row numbers."""
        chosen = np.asarray(indices, np.int64)
        columns = {name: [values[i] for i in chosen] for name, values in self.columns.items()}
        return replace(self, columns=columns, rows=self.rows[chosen])

    def where(self, index: int) -> str:
        """Returns the location of a record for messages."""
        return _place(self.source, int(self.rows[index]))

    def fault(self, index: int, message: str, hint: str) -> UserError:
        """Returns the error for a bad record, which names its file and row."""
        return UserError(f"{self.where(index)}: {message}", hint)

    def texts(self, name: str, empty: bool = False) -> list[str]:
        """Returns a column of texts.

        Raises:
            UserError: a value is not a text, or is blank without `empty`, in records with labels.
        """
        for index, value in enumerate(values := self.columns[name]):
            if not isinstance(value, str):
                self._refuse(index, name, value, "not a text", "Name a column of texts.")
            self._check_text(index, name, value)
            if not (empty or self.unlabelled or value.strip()):
                raise self.fault(index, f"the column {self.names[name]!r} is empty.", SKIP)
        return values

    def words(self, name: str, numbered: Sequence[str] = ()) -> list[list[str]]:
        """Returns a column of non-empty lists of words or tags.

        Args:
            numbered: words that may be given by their number, counted from 0.

        Raises:
            UserError: a value is not such a list.
        """
        hint = 'Write each sentence as a list of words, ["A", "word"], or use a .conll file.'
        values = self.columns[name]
        if numbered:
            values = [_named(value, numbered) for value in values]
        for index, value in enumerate(values):
            if not isinstance(value, list):
                self._refuse(index, name, value, "not a list of words", hint)
            if not value and not self.unlabelled:
                raise self.fault(index, f"the column {self.names[name]!r} has no word.", SKIP)
            for word in value:
                if not isinstance(word, str) or not word:
                    self._refuse(index, name, word, "where a word should be", hint)
                self._check_text(index, name, word)
        return values

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Returns a column of finite numbers, (N,). Texts that spell a number are accepted: CSV has only texts.

        Raises:
            UserError: a value is not a finite number.
        """
        numbers = np.empty(len(self), np.float64)
        for index, value in enumerate(self.columns[name]):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value)):
                self._refuse(index, name, value, "not a number", "Name a column of numbers.")
            try:
                numbers[index] = float(value)
            except OverflowError:
                numbers[index] = math.inf
            if not math.isfinite(numbers[index]):
                self._refuse(index, name, value, "not a finite number", "Correct the row or leave it out.")
        return numbers

    def labels(self, name: str) -> list[Label]:
        """Returns a column of labels, unchanged: all texts, all integers or all booleans.

        Raises:
            UserError: the values are of another type or of several types.
        """
        values = self.columns[name]
        for index, value in enumerate(values):
            if not isinstance(value, str | int):
                hint = "Write labels as texts or whole numbers." if value is not None else "Label it or leave it out."
                self._refuse(index, name, value, "not a label", hint)
            if isinstance(value, str) and not value.strip():
                raise self.fault(index, f"the column {self.names[name]!r} has no label.", "Label it or leave it out.")
            if type(value) is not type(values[0]):
                first = f"{self.where(0)} has {json.dumps(values[0], ensure_ascii=False)}"
                self._refuse(index, name, value, f"but {first}, of another kind", "Write all labels in one way.")
        return values

    def text_lists(self, name: str) -> list[list[str]]:
        """Returns a column of (possibly empty) lists of texts, as the answers to a question; a single text becomes a
        list. In tables, whose values are texts, a list is written as JSON, and an empty text is an empty list.
        """
        return self._lists(name, str, "texts")

    def integer_lists(self, name: str) -> list[list[int]]:
        """Returns a column of (possibly empty) lists of integers; a single integer becomes a list. In texts, commas
        separate them.
        """
        return self._lists(name, int, "whole numbers")

    def _lists(self, name: str, kind: type, what: str) -> list[list[Any]]:
        lists, is_table = [], self.is_table
        for index, value in enumerate(self.columns[name]):
            values = value if isinstance(value, list) else _spelled(value, kind, is_table)
            for one in values:
                if not isinstance(one, kind) or isinstance(one, bool):
                    self._refuse(index, name, one, f"not a list of {what}", f"Name a column of lists of {what}.")
                if isinstance(one, str):
                    self._check_text(index, name, one)
            lists.append(values)
        return lists

    def spelled_lists(self, name: str) -> list[Any]:
        """Returns the values of a column, in tables those that spell a list as JSON as that list."""
        if not self.is_table:
            return self.columns[name]
        lists = [_json_list(value) for value in self.columns[name]]
        return [value if one is None else one for value, one in zip(self.columns[name], lists, strict=True)]

    @property
    def is_table(self) -> bool:
        """Whether the records come from a table, all of whose values are texts."""
        return not self.source.startswith("hf:") and format_of(_split(self.source).path) in (".csv", ".tsv")

    def _check_text(self, index: int, name: str, text: str) -> None:
        if "\0" in text:
            raise self.fault(index, f"the column {self.names[name]!r} holds a NUL character.", "Clean the file.")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                what = f"the column {self.names[name]!r} holds half a character (a lone surrogate)."
                raise self.fault(index, what, "Clean the file.") from None

    def _refuse(self, index: int, name: str, value: Any, what: str, hint: str) -> NoReturn:
        shown = json.dumps(value, ensure_ascii=False, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        raise self.fault(index, f"the column {self.names[name]!r} is {shown}, {what}.", hint)


def _spelled(value: Any, kind: type, is_table: bool) -> list[Any]:
    """Returns the list that a value spells; a list of the value itself, if it spells none."""
    if not isinstance(value, str):
        return [value]
    if kind is int:
        parts = [part.strip() for part in value.strip().removeprefix("[").removesuffix("]").split(",")]
        return [int(part) for part in parts] if all(map(_WHOLE.fullmatch, parts)) else [value] if any(parts) else []
    if not is_table:
        return [value]
    found = _json_list(value)
    return [value] if found is None or not all(isinstance(one, str) for one in found) else found


def _json_list(text: str) -> list[Any] | None:
    """Returns the list that a text spells as JSON, [] for an empty text; None if it spells no list."""
    if not text.strip():
        return []
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) else None


def _named(value: Any, names: Sequence[str]) -> Any:
    """Returns a list with numbers replaced by names; any other value unchanged."""
    if not isinstance(value, list):
        return value
    return [names[one] if type(one) is int and 0 <= one < len(names) else one for one in value]


def read_records(
    source: str,
    columns: Mapping[str, str],
    *,
    form: str = "",
    on_error: OnError = "error",
    progress: Progress | None = None,
    longest: int = LONGEST_ROW,
) -> Records:
    """Read a file of labelled records.

    Args:
        source: a file, or hf:NAME; see the module's docstring.
        columns: caller's name → name of a column in the file; A.B is the field B of the column A.
        form: how the file is written, unless `source` names it (data/forms/registry.py); "": as its suffix says.
        on_error: "skip" leaves out rows that cannot be read, or of which one of the columns is empty, and counts them.
        progress: called with the number of rows read, four times a second after the first two seconds.
        longest: maximum bytes of a line.

    Returns:
        The records.

    Raises:
        UserError: a column is missing, a row is bad, or there are no rows; file and row are named.
    """
    if not columns:
        raise ValueError("read_records needs the name of at least one column")
    reads = _Reading(source, columns, on_error, progress)
    if source.startswith("hf:"):
        if form:
            raise UserError(f"{source} is no file: data.form={form!r} is of files.", 'Give data.form="".')
        spec = source.removeprefix("hf:")
        reads.collect(hub_rows(open_hub(spec, *_hub_parts(source)), spec))
        return reads.records(*_content_hash(reads.values))
    place = _split(source)
    reads.collect(_rows(replace(place, form=place.form or form), reads, longest))
    return reads.records(sha256_of(place.path), place.path.stat().st_size)


class _Reading:
    """Collects the columns of a source while it is read."""

    def __init__(self, source: str, columns: Mapping[str, str], on_error: OnError, progress: Progress | None) -> None:
        self.source, self.columns, self.on_error, self.progress = source, columns, on_error, progress
        self.values: dict[str, list[Any]] = {name: [] for name in columns}
        self.numbers: list[int] = []
        self.skipped = 0

    def bad(self, message: str, hint: str) -> None:
        """Count a bad row, or raise it as a UserError."""
        if self.on_error == "error":
            raise UserError(message, hint)
        self.skipped += 1

    def collect(self, rows: Iterator[Row]) -> None:
        """Take the named columns of all rows."""
        places = [(column, self.values[name].append) for name, column in self.columns.items()]
        due = time.monotonic() + QUIET
        for number, row in rows:
            values = [row[column] if column in row else self._within(row, column, number) for column, _ in places]
            if self.on_error == "skip" and any(_is_blank(value) for value in values):
                self.skipped += 1
                continue
            for (_, add), value in zip(places, values, strict=True):
                add(value)
            self.numbers.append(number)
            if self.progress and not len(self.numbers) % 256 and (now := time.monotonic()) > due:
                self.progress(len(self.numbers))
                due = now + EVERY

    def _within(self, row: Mapping[str, Any], column: str, number: int) -> Any:
        """Returns the nested field that "A.B" names."""
        try:
            return look_up(row, column)
        except KeyError:
            known = [*_paths(row)] or ["none"]
            what = f"{_place(self.source, number)}: no column {column!r}."
            raise UserError(what, did_you_mean(column, known)) from None

    def check(self, header: Sequence[str]) -> None:
        """Check that each named column is in the header of a table.

        Raises:
            UserError: a column is missing.
        """
        for column in self.columns.values():
            found = column if column in header else column.split(".")[0]
            if found not in header:
                raise UserError(f"{self.source} has no column {column!r}.", did_you_mean(column, header))
            if header.count(found) > 1:
                what = f"{self.source} has {header.count(found)} columns {found!r}."
                raise UserError(what, "Give each column its own name.")

    def of_parquet(self) -> list[str]:
        """Returns the columns of a Parquet file to read; names that the file does not have are ignored."""
        return sorted({*self.columns.values()} | {column.split(".")[0] for column in self.columns.values()})

    def records(self, sha256: str, size: int) -> Records:
        """Returns the records that were read.

        Raises:
            UserError: there are none.
        """
        if not self.numbers:
            left = f" but the {self.skipped:,} that are left out" if self.skipped else ""
            raise UserError(f"{self.source} has no rows{left}.", "Give a file with at least one example.")
        rows = np.array(self.numbers, np.int64)
        return Records(self.values, dict(self.columns), rows, self.source, sha256, size, skipped=self.skipped)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _paths(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields the columns of a row, and their nested fields."""
    for name, value in row.items():
        inner = value[0] if isinstance(value, list) and value else value
        yield from (f"{name}.{part}" for part in inner) if isinstance(inner, Mapping) else [str(name)]


@dataclass(frozen=True)
class _Place:
    """A file and how it is read: in a named form, or as CoNLL with names of its columns; None if it is a table."""

    path: Path
    conll: tuple[str, ...] | None = None
    form: str = ""


def _rows(place: _Place, reads: _Reading, longest: int) -> Iterator[Row]:
    path = place.path
    if not path.is_file():
        what = "is a directory or a special file" if path.exists() else "does not exist"
        raise UserError(f"{path} {what}.", "Give the path of a file, or hf:NAME.")
    rules = Rules(reads.bad, longest, reads.check)
    if place.form:
        return form_named(place.form)(path, rules)
    if place.conll is not None:
        if place.conll:
            reads.check(place.conll)
        return conll_rows(path, rules, place.conll)
    kind = format_of(path)
    if kind == ".jsonl":
        return json_rows(path, rules)
    if kind == ".json":
        return json_file_rows(path, rules, [])
    if kind == ".parquet":
        return parquet_rows(path, rules, reads.of_parquet())
    if kind == ".txt":
        hint = "Give .jsonl, .json, .csv, .tsv, .parquet or .conll, or say how it is written"
        raise UserError(f"{path} is a text file, which has no columns.", f'{hint}: data.form="tsv", "nsmc", ….')
    return table_rows(path, rules, tabs=kind == ".tsv")


def _place(source: str, row: int) -> str:
    return f"{source}, row {row}" if source.startswith("hf:") else place(_split(source).path, row)


def _split(source: str) -> _Place:
    """Split FILE?form=NAME and FILE?conll=A,B (whose columns may have no names: ?conll) into their parts."""
    mark = re.search(r"\?(?P<key>conll|form)(=(?P<value>[^?]*))?$", source)
    if mark is None or Path(source).exists():
        path = Path(source)
        return _Place(path, () if suffix_of(path) == ".conll" else None)
    path = Path(source[: mark.start()])
    if mark["key"] == "form":
        return _Place(path, form=mark["value"] or "?")
    names = tuple(mark["value"].split(",")) if mark["value"] else ()
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"{source} does not name its columns.", "Give each column a name of its own: ?conll=word,tag")
    return _Place(path, names)


def _hub_parts(source: str) -> tuple[str, str | None, str]:
    """Parse hf:NAME:CONFIG?split=SPLIT; without "?split=", the form that `data prepare` takes."""
    spec, mark, split = source.removeprefix("hf:").partition("?split=")
    if not mark:
        return hub_parts(spec)
    if not split:
        raise UserError(f"{source} names no split.", "For example ?split=train")
    name, _, config = spec.partition(":")
    return name, config or None, split


def _content_hash(columns: Mapping[str, list[Any]]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    for values in zip(*columns.values(), strict=True):
        line = json.dumps(values, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"
        digest.update(line)
        size += len(line)
    return digest.hexdigest(), size
