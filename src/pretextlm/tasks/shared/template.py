"""Texts made of a record's columns: one column as it is, or a template with the names of columns in braces.

    {"premise": "I ran.", "asks_for": "cause"}

    text      "premise"                    →  I ran.
    text      "{premise} {asks_for}"       →  I ran. cause
    wording   asks_for, cause = "Why?"     →  I ran. Why?

{{ and }} are braces. A.B is the field B of the column A. A value of a column with a wording is replaced by its words; a
value without words is an error that names the row.
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
"""Column → value → the words that replace it."""
Piece = tuple[str, str]
"""A literal text, and the column that follows it, if any."""


@dataclass(frozen=True)
class Template:
    """A text with placeholders for columns."""

    pieces: tuple[Piece, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Returns the template of a text with or without columns in braces.

        Raises:
            ValueError: a brace holds anything but the name of a column.
        """
        pieces = []
        for literal, name, form, turned in string.Formatter().parse(text):
            if name is not None and (not name.strip() or form or turned):
                raise ValueError("a brace holds the name of a column and nothing else; {{ is a brace")
            pieces.append((literal, name or ""))
        return cls(tuple(pieces))

    @classmethod
    def of(cls, text: str) -> Template:
        """Returns the column of that name, or the template of a text with braces.

        Raises:
            ValueError: the template names no column.
        """
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
        """Whether it is one column without any text."""
        return len(self.pieces) == 1 and self.pieces[0][0] == "" and bool(self.pieces[0][1])

    def filled(self, values: Mapping[str, str]) -> str:
        """Returns the text of a record whose columns have these values."""
        return "".join(literal + (values[name] if name else "") for literal, name in self.pieces)


def columns_read(role: str, template: Template, besides: str = "") -> dict[str, str]:
    """Returns the columns of a template: role → name.

    Args:
        role: name of the text, which tells its columns from those of another text.
        template: of the text.
        besides: placeholder that is no column.
    """
    return {f"{role}: {name}": name for name in template.columns if name != besides}


def values_read(
    records: Records, role: str, template: Template, wording: Wording, besides: str = ""
) -> list[dict[str, str]]:
    """Returns, for each record, the values of the template's columns in words.

    Raises:
        UserError: a value is no text; names its row.
    """
    columns = {}
    for key, name in columns_read(role, template, besides).items():
        words = wording.get(name)
        columns[name] = records.texts(key, empty=True) if words is None else _in_words(records, key, words)
    return [{name: values[index] for name, values in columns.items()} for index in range(len(records))]


def texts_read(records: Records, role: str, template: Template, wording: Wording) -> list[str]:
    """Returns the text of each record; that of a template has no spaces around it.

    Raises:
        UserError: all columns of a record are empty; names its row.
    """
    if template.is_column and template.columns[0] not in wording:
        return records.texts(next(iter(columns_read(role, template))))
    texts = []
    for index, values in enumerate(values_read(records, role, template, wording)):
        if not any(value.strip() for value in values.values()):
            raise records.fault(index, f"every column of the {role} is empty.", "Leave such rows out.")
        texts.append(template.filled(values).strip())
    return texts


def _in_words(records: Records, key: str, words: Mapping[str, str]) -> list[str]:
    """Returns the words for each value of a column."""
    found = []
    for index, value in enumerate(records.labels(key)):
        given = str(value).strip()
        if given not in words:
            message = f"the column {records.names[key]!r} is {given!r}, for which task.wording has no words."
            raise records.fault(index, message, did_you_mean(given, words))
        found.append(words[given])
    return found
