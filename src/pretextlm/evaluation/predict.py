"""Answers of a fine-tuned run for records without labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import Records, read_records
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.scores.spans import spans_of
from pretextlm.evaluation.task_evaluation import examples_of, predictions, with_columns
from pretextlm.files import AnyPath
from pretextlm.tasks.token_classification import TokenClassification
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device

if TYPE_CHECKING:
    from pretextlm.tasks.base import Task

BATCH_RECORDS = 512
"""Records that are answered between two calls of `progress`."""
GIVEN = "the texts"
"""Name of records that come from no file, in error messages."""

Texts = str | Mapping[str, Any] | Sequence[str] | Sequence[Mapping[str, Any]]


def predict(
    run: AnyPath,
    texts: Texts | None = None,
    *,
    file: str | None = None,
    device: Device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Returns the answers of a fine-tuned run, one per record, computed in fp32 with its newest weights.

    An answer does not depend on the other records, up to rounding.

    Args:
        run: the run, or its directory.
        texts: one or more texts if the task reads one column, otherwise one or more records as mappings, for example
            `{"premise": …, "hypothesis": …}`. A list of "column=text" for each column is one record, too.
        file: a file of records instead; its columns have the names in the recipe, or those in FILE?text=review.
        device: "cpu", "cuda" or "auto".
        progress: called with the number of records answered and their total number.

    Returns:
        For each record its "row", the "answer" and details: the "probabilities" of classes and choices, the "tokens"
        that were tagged and, for tags with B- and I-, the "names" they mark.

    Raises:
        UserError: the run was not fine-tuned, or a record is wrong.
    """
    run = Run.open(run)
    task = run.recipe.task
    if task is None:
        hint = "Use `pretextlm fill` or `generate`, or fine-tune it: pretextlm finetune RECIPE start=RUN"
        raise UserError(f"{run.directory} was trained on no task: it gives no answers.", hint)
    if (texts is None) == (file is None):
        raise UserError("predict needs texts or a file, and not both.", "Give texts, or file = FILE.")
    if file is not None:
        task, source = with_columns(task, file)
        records = read_records(source, task.input_columns())
    else:
        records = records_of(task, texts if texts is not None else [])
    records = task.unlabelled(records)
    model = run.load_model(as_device(device))
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    found: list[dict[str, Any]] = []
    for begin in range(0, len(records), BATCH_RECORDS):
        some = records.take(range(begin, min(begin + BATCH_RECORDS, len(records))))
        examples = examples_of(model, task, run, some)
        answers = task.explain(predictions(model, task, examples, run), examples, encoder, some)
        if isinstance(task, TokenClassification) and any(label.startswith("B-") for label in task.labels):
            _add_names(answers, " " if task.units == "words" else "")
        found += [{"row": int(row), **one} for row, one in zip(some.rows, answers, strict=True)]
        if progress:
            progress(len(found), len(records))
    return found


def _add_names(answers: Sequence[dict[str, Any]], between: str) -> None:
    """Adds to each answer the names that its tags mark: type, text, and index of the first word and after the last."""
    for one, spans in zip(answers, spans_of([one["answer"] for one in answers]), strict=True):
        one["names"] = [
            {"type": kind, "text": between.join(one["tokens"][start:stop]), "start": start, "stop": stop}
            for kind, start, stop in spans
        ]


def records_of(task: Task, texts: Texts) -> Records:
    """Returns texts or mappings as records of a task.

    Raises:
        UserError: a column is missing, or the task does not read it.
    """
    columns = task.input_columns()
    given = [texts] if isinstance(texts, str | Mapping) else list(texts)
    rows: list[Mapping[str, Any]]
    if given and isinstance(given[0], Mapping):
        rows = cast("list[Mapping[str, Any]]", given)
    elif len(columns) == 1:
        name = next(iter(columns.values()))
        rows = [{name: str(text).removeprefix(f"{name}=")} for text in given]
    else:
        rows = [_typed(task, [str(text) for text in given])]
    for row in rows:
        _check_columns(task, row)
    values = {role: [_value(task, role, row[name]) for row in rows] for role, name in columns.items()}
    return Records(values, columns, np.arange(1, len(rows) + 1), GIVEN, "", 0)


def _typed(task: Task, texts: Sequence[str]) -> dict[str, str]:
    """Returns the record of texts such as "premise=A man sleeps."."""
    names = list(task.input_columns().values())
    record = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in names:
            hint = f"{did_you_mean(name, names)} Write each as COLUMN=TEXT: {' '.join(f'{one}=…' for one in names)}"
            raise UserError(f"{text[:40]!r} names none of the columns that the task {task.name} reads.", hint)
        record[name] = value
    return record


def _check_columns(task: Task, row: Mapping[str, Any]) -> None:
    names = list(task.input_columns().values())
    strange = next((name for name in row if name not in names), None)
    if strange is not None:
        raise UserError(f"The task {task.name} reads no column {strange!r}.", did_you_mean(strange, names))
    missing = next((name for name in names if name not in row), None)
    if missing is not None:
        raise UserError(f"The task {task.name} reads {missing!r}, too.", f"Add {missing}=TEXT")


def _value(task: Task, role: str, value: Any) -> Any:
    """Returns a column's value: a list if the text is one in JSON, or if the task reads words or characters."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            pass
    if isinstance(task, TokenClassification) and role == "tokens":
        return value.split() if task.units == "words" else list(value)
    return value
