"""A fine-tuned run against records with labels: its answers, and the scores that its task is judged by."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.examples import ExampleReader, Examples
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.scores.table import score_named
from pretextlm.files import write_json, write_whole
from pretextlm.metric import Metric, exponential, ratio
from pretextlm.tasks.shared.writing import WritingTask
from pretextlm.tasks.text_classification import TextClassification
from pretextlm.training.corpus import read_split
from pretextlm.training.validation import evaluation_batches

if TYPE_CHECKING:
    import torch

    from pretextlm.data.records import Records
    from pretextlm.model.transformer import Transformer
    from pretextlm.tasks.base import Task
    from pretextlm.training.run_directory import Run

PREDICTIONS = "predictions.jsonl"
COLUMNS = (
    *("text", "text_pair", "label", "choices", "label_names"),
    *("tokens", "tags", "question", "context", "answer", "start"),
)
"""Options of tasks that name columns."""
METRICS = "metrics"
"""The option that names scores."""
GROUP_TOKENS = 512
"""Tokens of a group of examples, the unit of a loss's standard error."""


def evaluate_task(run: Run, data: str = "", device: torch.device | None = None) -> dict[str, Any]:
    """Measure the newest checkpoint; writes and returns evaluation.json, and writes predictions.jsonl.

    Args:
        data: records; by default the recipe's data.validation. FILE?text=sentence&label=label names columns that are
            called otherwise than in the recipe, as those of an imported run are; &metrics=matthews,f1 other scores.

    Raises:
        UserError: the run has no checkpoint, or a record is wrong.
    """
    task, data = with_columns(cast("Task", run.recipe.task), data)
    check_scores(task)
    records = task.filter_records(read_split(run.recipe.model_copy(update={"task": task}), "validation", data))
    model = run.load_model(device)
    examples = examples_of(model, task, run, records)
    found = predictions(model, task, examples, run)
    answers = task.answers(found, examples, OffsetTokenizer(run.tokenizer, run.vocabulary), records)
    wanted = task.references(records)
    metrics = {name: scored(name, task, answers, wanted, records, found) for name in task.metric_names}
    if isinstance(task, WritingTask):
        metrics |= answers_loss(model, task, examples, run)
    lines = [
        json.dumps({"row": int(row), "answer": given, "wanted": right}, ensure_ascii=False) + "\n"
        for row, given, right in zip(records.rows, answers, wanted, strict=True)
    ]
    evaluation = {
        "metrics": {name: metric.plain() for name, metric in metrics.items()},
        "settings": {
            "task": task.name,
            "data": records.source,
            "sha256": records.sha256,
            "records": len(records),
            "dtype": "fp32",
            "blanks": 0,
        },
    }
    write_whole(run.directory / PREDICTIONS, "".join(lines))
    write_json(run.directory / "evaluation.json", evaluation)
    return evaluation


def with_columns(task: Task, data: str) -> tuple[Task, str]:
    """(the task with the columns that the name of a file says, that file)."""
    place, _, rest = data.rpartition("?")
    named = [part.partition("=")[::2] for part in rest.split("&")]
    if not place or not all(key in (*COLUMNS, METRICS) and value for key, value in named):
        return task, data
    known = [key for key in (*COLUMNS, METRICS) if key in type(task).model_fields]
    for key, _ in named:
        if key not in known:
            raise UserError(f"The task {task.name} has no column for {key!r}.", did_you_mean(key, known))
    values: dict[str, Any] = dict(named)
    if METRICS in values:
        values[METRICS] = names = values[METRICS].split(",")
        if "group" in type(task).model_fields and all(score_named(name).inputs != "groups" for name in names):
            values["group"] = []  # the file needs no such columns
    return type(task).parse({**task.model_dump(), **values}, data), place


def check_scores(task: Task) -> None:
    """Raises UserError for a score that there is not, or that does not suit the task."""
    for name in task.metric_names:
        inputs = score_named(name).inputs
        if inputs in ("groups", "probabilities") and not isinstance(task, TextClassification):
            raise UserError(f"The score {name!r} is of classes, which {task.name} has none of.", "Choose another.")
        if inputs == "groups" and isinstance(task, TextClassification) and not task.group:
            what = f"The score {name!r} is over groups of records, and the recipe names none."
            raise UserError(what, 'Name the columns that say which belong together: task.group=["question"]')


def scored(
    name: str, task: Task, answers: Sequence[Any], wanted: Sequence[Any], records: Records, found: NDArray[Any]
) -> Metric:
    """A score of the answers. Classes are numbered, so that the second one is the positive class.

    Args:
        records: that were asked.
        found: what the task predicted of all examples.
    """
    score = score_named(name)
    number = {label: place for place, label in enumerate(getattr(task, "labels", ()))}
    if score.inputs in ("labels", "groups", "probabilities"):
        answers, wanted = ([number.get(one, one) for one in some] for some in (answers, wanted))
    if not isinstance(task, TextClassification):
        return score(answers, wanted)
    if score.inputs == "groups":
        return score(answers, wanted, task.groups(records))
    if score.inputs == "probabilities":
        return score(found, wanted)
    return (
        score(answers, wanted, task.judged_classes()) if score.classes and task.none_label else score(answers, wanted)
    )


def examples_of(model: Transformer, task: Task, run: Run, records: Records) -> Examples:
    """Records as the run reads them."""
    return task.examples(records, OffsetTokenizer(run.tokenizer, run.vocabulary), model.config, run.recipe.data.length)


def answers_loss(model: Transformer, task: Task, examples: Examples, run: Run) -> dict[str, Metric]:
    """Loss per token of the answers wanted, in nats, and its exponential: the perplexity.

    Standard errors are over groups of examples.
    """
    import torch

    from pretextlm.model.model_inputs import prepare

    device = model.embed_tokens.weight.device
    reader = ExampleReader(examples)
    batches = evaluation_batches(reader, task, run.vocabulary, len(examples), 0, GROUP_TOKENS)
    with torch.inference_mode():
        terms = [task.terms(model(prepare(b, model.config, device, torch.float32)), b)["lm"] for b in batches]
    loss = ratio([float(term.total) for term in terms], [term.count for term in terms], "nats", "lower")
    return {"answer_loss": loss, "answer_perplexity": exponential(loss)}


def predictions(model: Transformer, task: Task, examples: Examples, run: Run) -> NDArray[Any]:
    """What the model says of all examples, in their order."""
    import torch

    from pretextlm.model.model_inputs import prepare

    if isinstance(task, WritingTask):
        return task.write(model, examples, run.vocabulary)
    device = model.embed_tokens.weight.device
    reader = ExampleReader(examples, in_order=True)
    batches = evaluation_batches(reader, task, run.vocabulary, len(examples), 0)
    with torch.inference_mode():
        found = [task.predict(model(prepare(b, model.config, device, torch.float32)), b) for b in batches]
    return np.concatenate(found)
