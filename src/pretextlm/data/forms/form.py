"""A form: how the owner of a published data set wrote its files, read as the columns that its recipe names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pretextlm.data.tables import Row, Rules, json_file_rows, table_rows

Value = Callable[[str], Any]
Reader = Callable[[Path, Rules], Iterator[Row]]
"""Yields the records of a file. It calls `Rules.check` with the names of the columns, if all records have the same."""


@dataclass(frozen=True)
class Table:
    """Delimited text, or with `json` an array of objects, some of whose columns have other names in the recipe.

    A record has its columns under the owner's names, too.

    Attributes:
        columns: name in the recipe → name in the file.
        values: what a column's text stands for, by its name in the recipe.
        header: names of the columns of a file without a header.
        tabs, quotes: whether columns are separated by tabs (or by commas), and whether quotation marks enclose texts.
        json: whether it is JSON.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    header: Sequence[str] = ()
    tabs: bool = True
    quotes: bool = False
    json: bool = False

    def __call__(self, path: Path, rules: Rules) -> Iterator[Row]:
        """Yields the records of a file."""
        if self.json:
            rows = json_file_rows(path, rules, [])
        else:
            renamed = replace(rules, check=lambda header: rules.check([*header, *self._new_names(header)]))
            rows = table_rows(path, renamed, self.tabs, self.quotes, self.header)
        for number, row in rows:
            yield number, {**row, **{name: self._value(name, row) for name in self._names(row)}}

    def _names(self, columns: Any) -> list[str]:
        """Returns the recipe's names of the columns that a file has: parts without labels lack them."""
        return [name for name, column in self.columns.items() if column in columns]

    def _new_names(self, columns: Sequence[str]) -> list[str]:
        return [name for name in self._names(columns) if name not in columns]

    def _value(self, name: str, row: Mapping[str, Any]) -> Any:
        value = row[self.columns[name]]
        return self.values[name](value) if name in self.values else value


def truth(text: str) -> int | str:
    """Returns 1 for "True", 0 for "False" in any case; any other text unchanged."""
    return {"true": 1, "false": 0}.get(text.strip().lower(), text)


def from_one(text: str) -> int | str:
    """Returns a number that is counted from 1 as one from 0; any other text unchanged."""
    return int(text) - 1 if text.strip().isdecimal() else text
