"""Texts made of a record's columns: one column as it is, or a template with the names of columns in braces.

    {"premise": "I ran.", "asks_for": "cause"}

    text      "premise"                    →  I ran.
    text      "{premise} {asks_for}"       →  I ran. cause
    wording   asks_for, cause = "Why?"     →  I ran. Why?

{{ and }} are braces. A.B is the field B of the column A. A column with a wording is read as what the wording says for
its value; a value that it says nothing for is refused by row.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pretextlm.errors import did_you_mean

if TYPE_CHECKING:
    from pretextlm.data.records import Records

Wording = Mapping[str, Mapping[str, str]]
"""Column → value → what is read for it."""
Piece = tuple[str, str]
"""A literal text, and the column that follows it, if any."""


@dataclass(frozen=True)
class Template:
    """A text with places for columns."""

    pieces: tuple[Piece, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """A text with columns in braces, or without any. Raises ValueError where a brace holds something else."""
        pieces = []
        for literal, name, form, turned in string.Formatter().parse(text):
            if name is not None and (not name.strip() or form or turned):
                raise ValueError("a brace holds the name of a column and nothing else; {{ is a brace")
            pieces.append((literal, name or ""))
        return cls(tuple(pieces))

    @classmethod
    def of(cls, text: str) -> Template:
        """The column of that name, or a template where there are braces. Raises ValueError for one without a column."""
        if "{" not in text and "}" not in text:
            return cls((("", text),))
        found = cls.parse(text)
        if not found.columns:
            raise ValueError("the template names no column: write the name of one in braces")
        return found

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, each once."""
        return tuple(dict.fromkeys(name for _, name in self.pieces if name))

    @property
    def is_column(self) -> bool:
        """Whether it is one column and nothing else."""
        return len(self.pieces) == 1 and self.pieces[0][0] == "" and bool(self.pieces[0][1])

    def filled(self, values: Mapping[str, str]) -> str:
        """The text of one record, whose columns have these values."""
        return "".join(literal + (values[name] if name else "") for literal, name in self.pieces)


def columns_read(role: str, template: Template, besides: str = "") -> dict[str, str]:
    """What for → column, of all that a template names but the one that is no column.

    Args:
        role: what the text is, which tells its columns from those of another text.
    """
    return {f"{role}: {name}": name for name in template.columns if name != besides}


def values_read(
    records: Records, role: str, template: Template, wording: Wording, besides: str = ""
) -> list[dict[str, str]]:
    """Of each record, the values of the columns in words. Raises UserError by row for one that is not a text."""
    columns = {}
    for key, name in columns_read(role, template, besides).items():
        said = wording.get(name)
        columns[name] = records.texts(key, empty=True) if said is None else _worded(records, key, said)
    return [{name: values[index] for name, values in columns.items()} for index in range(len(records))]


def texts_read(records: Records, role: str, template: Template, wording: Wording) -> list[str]:
    """The text of each record, a template's without spaces around it.

    Raises UserError by row for one whose columns are all empty.
    """
    if template.is_column and template.columns[0] not in wording:
        return records.texts(next(iter(columns_read(role, template))))
    texts = []
    for index, values in enumerate(values_read(records, role, template, wording)):
        if not any(value.strip() for value in values.values()):
            raise records.fault(index, f"every column of the {role} is empty.", "Leave such rows out.")
        texts.append(template.filled(values).strip())
    return texts


def _worded(records: Records, key: str, said: Mapping[str, str]) -> list[str]:
    """What is said for each value of a column."""
    found = []
    for index, value in enumerate(records.labels(key)):
        given = str(value).strip()
        if given not in said:
            what = f"the column {records.names[key]!r} is {given!r}, for which task.wording has no words."
            raise records.fault(index, what, did_you_mean(given, said))
        found.append(said[given])
    return found
