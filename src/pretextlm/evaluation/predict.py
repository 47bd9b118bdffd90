"""A fine-tuned run asked about records that have no labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import Records, read_records
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.scores.spans import spans_of
from pretextlm.evaluation.task_evaluation import examples_of, predictions, with_columns
from pretextlm.tasks.token_classification import TokenClassification
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    import torch

    from pretextlm.tasks.base import Task

AT_ONCE = 512
"""Records that are answered between two reports of progress."""
TYPED = "the command line"


def predict(
    directory: Path,
    asked: str | Sequence[str],
    *,
    device: torch.device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """What a fine-tuned run's newest model answers to each record, in their order, in fp32.

    Each answer has its "row", the "answer", and what stands behind it: of classes and choices their "probabilities",
    of tags the "tokens" and, where they are B- and I-, the "names". An answer does not depend on the records beside
    it, up to rounding.

    Args:
        directory: the run.
        asked: a file of records (its columns are those of the recipe, FILE?text=review names them otherwise), or
            texts: of a task that reads one column, each is a record; otherwise "column=text" for each column of one.
        progress: told how many of how many records are answered.

    Raises:
        UserError: the run is of no task, or a record is wrong.
    """
    run = Run.open(directory)
    if run.recipe.task is None:
        hint = "Ask it by `pretextlm fill` or `generate`, or fine-tune it: pretextlm finetune RECIPE start=RUN"
        raise UserError(f"{directory} was trained on no task: it has no answers of one.", hint)
    task = run.recipe.task
    if isinstance(asked, str):
        task, source = with_columns(task, asked)
        questions = read_records(source, task.input_columns())
    else:
        questions = typed(task, asked)
    records = task.unlabelled(questions)
    model = run.load_model(device)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    found: list[dict[str, Any]] = []
    for begin in range(0, len(records), AT_ONCE):
        some = records.take(range(begin, min(begin + AT_ONCE, len(records))))
        examples = examples_of(model, task, run, some)
        answers = task.explain(predictions(model, task, examples, run), examples, encoder, some)
        if isinstance(task, TokenClassification) and any(label.startswith("B-") for label in task.labels):
            _add_names(answers, " " if task.units == "words" else "")
        found += [{"row": int(row), **one} for row, one in zip(some.rows, answers, strict=True)]
        if progress:
            progress(len(found), len(records))
    return found


def _add_names(answers: Sequence[dict[str, Any]], between: str) -> None:
    """What the tags name: its type, its text, and the places of its first word and of the one behind its last."""
    spans = spans_of([one["answer"] for one in answers]).plain()
    for number, one in enumerate(answers):
        named = spans[number] if number < len(spans) else []
        one["names"] = [
            {"type": kind, "text": between.join(one["tokens"][start:stop]), "start": start, "stop": stop}
            for kind, start, stop in named
        ]


def typed(task: Task, texts: Sequence[str]) -> Records:
    """Records from what was typed. Raises UserError for a column that the task does not read, or that is missing."""
    columns = task.input_columns()
    roles = {name: role for role, name in columns.items()}
    if len(columns) == 1:
        role, name = next(iter(columns.items()))
        values = [_value(task, role, text.removeprefix(f"{name}=")) for text in texts]
        return _records({role: values}, columns, len(texts))
    record = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in roles:
            hint = f"{did_you_mean(name, roles)} Write each as COLUMN=TEXT: {' '.join(f'{one}=…' for one in roles)}"
            raise UserError(f"{text[:40]!r} names none of the columns that the task {task.name} reads.", hint)
        record[roles[name]] = [_value(task, roles[name], value)]
    missing = [name for name, role in roles.items() if role not in record]
    if missing:
        raise UserError(f"The task {task.name} reads {missing[0]!r}, too.", f"Add {missing[0]}=TEXT")
    return _records(record, columns, 1)


def _value(task: Task, role: str, text: str) -> Any:
    """A list where one was typed as JSON, or where the task reads words or characters."""
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            pass
    if isinstance(task, TokenClassification) and role == "tokens":
        return text.split() if task.units == "words" else list(text)
    return text


def _records(columns: dict[str, list[Any]], names: dict[str, str], count: int) -> Records:
    return Records(columns, names, np.arange(1, count + 1), TYPED, "", 0)
