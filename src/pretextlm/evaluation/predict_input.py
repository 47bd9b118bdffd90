"""Records without labels, from what a user types, gives as mappings, or keeps in a file.

    ["A gorgeous film.", "It never ends."]                    a task that reads one column: a record each
    ["premise=A man sleeps.", "hypothesis=Someone rests."]    one record, by the names of the task's columns
    {"premise": "A man sleeps.", "hypothesis": "…"}           the same
    reviews.jsonl, reviews.csv?text=review                    the task's columns of a file
    reviews.txt                                               a task that reads one column: a record each line

A published classifier does not say whether it reads one text or two, nor how they are named. An imported one reads
`text` and, if it is given, `text_pair`; two typed texts with other names are these two, in their order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pretextlm.data.records import Records, read_records
from pretextlm.data.streams import open_bytes
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.task_evaluation import with_columns
from pretextlm.file_names import suffix_of
from pretextlm.tasks.shared.text_input import TextTask

if TYPE_CHECKING:
    from pretextlm.tasks.base import Task

GIVEN = "the texts"
"""Name of records that come from no file, in error messages."""
LISTS = ("tokens", "choices", "label_names")
"""Roles of columns that hold lists."""
NAMED = re.compile(r"(?P<name>[^\W\d][\w.]*)=(?P<text>.*)", re.DOTALL)

Texts = str | Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any]]


def read_inputs(task: Task, file: str, imported: bool) -> tuple[Task, Records]:
    """Returns the records of a file, and the task with the columns that the file's name gives (FILE?text=review).

    Args:
        task: that reads them.
        file: a file of lines (.txt), a file of records, or hf:NAME.
        imported: whether the task's columns have the names of an import, which are nobody's choice.

    Raises:
        UserError: the file does not exist, or a record is wrong.
    """
    task, source = with_columns(task, file)
    path = Path(source)
    if suffix_of(path) == ".txt" and path.is_file():
        with open_bytes(path) as stream:
            return records_of(task, lines_of(decoded(stream.read(), file)), imported)
    return task, read_records(source, task.input_columns())


def decoded(data: bytes, where: str) -> str:
    """Returns the text of UTF-8 bytes, without a byte order mark.

    Raises:
        UserError: they are not UTF-8; `where` names them.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1:,} is not UTF-8.", "Convert the text to UTF-8.") from None


def lines_of(text: str) -> list[str] | list[dict[str, Any]]:
    """Returns the lines of a text that are not blank: JSON objects if the first one is, otherwise texts.

    Raises:
        UserError: a line is not a JSON object, though the first one is.
    """
    lines = [(number, line) for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1) if line.strip()]
    if not lines or not lines[0][1].lstrip().startswith("{"):
        return [line for _, line in lines]
    records = []
    for number, line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            hint = "Give an object a line, or a text a line: the first line decides."
            raise UserError(f"Line {number} is not a JSON object.", hint)
        records.append(record)
    return records


def records_of(task: Task, texts: Texts, imported: bool = False) -> tuple[Task, Records]:
    """Returns texts or mappings as records of a task, and the task with the columns that they name.

    Raises:
        UserError: a column is missing, or the task does not read it.
    """
    given = [texts] if isinstance(texts, str | Mapping) else list(texts)
    if not given:
        raise UserError("There is no text.", "Give at least one.")
    rows: list[Mapping[str, Any]]
    if isinstance(given[0], Mapping):
        rows = cast("list[Mapping[str, Any]]", given)
    else:
        rows = _typed(task, [str(text) for text in given], imported)
    if imported and _may_be_pair(task) and "text_pair" in rows[0]:
        task = task.model_copy(update={"text_pair": "text_pair"})
    columns = task.input_columns()
    for row in rows:
        _check_columns(task, row)
    values = {role: [_value(role, row[name]) for row in rows] for role, name in columns.items()}
    return task, Records(values, columns, np.arange(1, len(rows) + 1), GIVEN, "", 0)


def _typed(task: Task, texts: Sequence[str], imported: bool) -> list[Mapping[str, Any]]:
    """Returns the records of texts, or the one record of texts such as "premise=A man sleeps."."""
    names = list(dict.fromkeys(task.input_columns().values()))
    named = [(found["name"], found["text"]) if (found := NAMED.fullmatch(text)) else ("", text) for text in texts]
    keys = {key for key, _ in named}
    if len(names) > 1:
        return [_record(named, names)]
    (name,) = names
    if len(named) > 1 and len(keys) == len(named) and keys.isdisjoint({name, ""}):
        if imported and _may_be_pair(task) and len(named) == 2:
            return [dict(zip(("text", "text_pair"), (text for _, text in named), strict=True))]
        message = f"The task reads the column {name}, and not {', '.join(sorted(keys))}."
        raise UserError(message, f"Write {name}=TEXT for each text.")
    if imported and _may_be_pair(task) and keys == {"text", "text_pair"}:
        return [dict(named)]
    return [{name: value if key == name else text} for (key, value), text in zip(named, texts, strict=True)]


def _record(named: Sequence[tuple[str, str]], names: Sequence[str]) -> Mapping[str, Any]:
    """Returns the record of texts with their names, of which "" is none.

    Raises:
        UserError: a text names no column of `names`, or the same one as another text.
    """
    write = f"Write one record as {' '.join(f'{name}=…' for name in names)}; give several in a file: --file FILE"
    for key, text in named:
        if key not in names:
            what = f"{key!r} is none of them" if key else f"{text[:40]!r} names none of them"
            raise UserError(
                f"The task reads {len(names)} columns, and {what}.",
                f"{did_you_mean(key, names)} {write}" if key else write,
            )
    if len(dict(named)) < len(named):
        raise UserError("A column is given twice.", write)
    return dict(named)


def _may_be_pair(task: Task) -> bool:
    return isinstance(task, TextTask) and (task.text, task.text_pair) == ("text", "")


def _check_columns(task: Task, row: Mapping[str, Any]) -> None:
    names = list(task.input_columns().values())
    strange = next((name for name in row if name not in names), None)
    if strange is not None:
        raise UserError(f"The task {task.name} reads no column {strange!r}.", did_you_mean(strange, names))
    missing = next((name for name in names if name not in row), None)
    if missing is not None:
        raise UserError(f"The task {task.name} reads {missing!r}, too.", f"Add {missing}=TEXT")


def _value(role: str, value: Any) -> Any:
    """Returns a column's value: of a column of lists also one that is written in JSON."""
    if role in LISTS and isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value
