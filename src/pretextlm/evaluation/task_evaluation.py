"""Evaluation of a fine-tuned run on labelled records: its predictions and the metrics of its task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.examples import ExampleReader, Examples
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.result_files import EVALUATION, ResultFiles
from pretextlm.evaluation.scores.choice import credit
from pretextlm.evaluation.scores.table import score_named
from pretextlm.evaluation.trained_model import weights_used
from pretextlm.files import write_json, write_text
from pretextlm.metric import Metric, exponential, mean, ratio
from pretextlm.tasks.multiple_choice import MultipleChoice
from pretextlm.tasks.sentence_embedding import SentenceEmbedding
from pretextlm.tasks.shared.writing import WritingTask
from pretextlm.tasks.text_classification import TextClassification
from pretextlm.training.corpus import read_split
from pretextlm.training.run_manifest import check_held_out
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
"""Options of tasks that are names of columns."""
SHOWN_CHARACTERS = 400
"""Length of a text in the predictions' file, which is for people."""
FORM = "form"
"""The option that says how a file is written (data/forms)."""
METRICS = "metrics"
"""The option that lists the metrics."""
GROUP_TOKENS = 512
"""Tokens per group of examples; the standard error of a loss is over such groups."""


def evaluate_task(run: Run, data: str = "", device: torch.device | None = None) -> dict[str, Any]:
    """Evaluate the newest checkpoint and write evaluation.json and predictions.jsonl to the run directory.

    Results on another file than the run's own are written to evaluation-NAME.json and predictions-NAME.jsonl.

    Args:
        run: A run that was fine-tuned on a task.
        data: File or data set of records; by default the recipe's ``data.validation``. In
            ``FILE?text=sentence&label=label`` the options name columns that differ from those of the recipe;
            ``&metrics=matthews,f1`` replaces the metrics.
        device: Device of the model, by default the CPU.

    Returns:
        The content of evaluation.json.

    Raises:
        UserError: The run has no checkpoint, or a record is invalid.
    """
    files = ResultFiles.of(run.directory, data, run.recipe.data.validation)
    task, records = task_records(run, data)
    metrics, answers = task_metrics(run, run.load_model(device), task, records)
    references = task.references(records)
    inputs = shown_inputs(task, records)
    lines = [
        json.dumps({"row": int(row), "answer": given, "wanted": right, "input": read}, ensure_ascii=False) + "\n"
        for row, given, right, read in zip(records.rows, answers, references, inputs, strict=True)
    ]
    evaluation = {
        "metrics": {name: metric.plain() for name, metric in metrics.items()},
        "settings": {
            **weights_used(run),
            "task": task.name,
            "data": records.source,
            "measured_on": files.place,
            "file": files.path(EVALUATION).name,
            "sha256": records.sha256,
            "records": len(records),
            "records_left_out": records.skipped,
            "dtype": "fp32",
            "blanks": 0,
        },
    }
    write_text(files.path(PREDICTIONS), "".join(lines))
    write_json(files.path(EVALUATION), evaluation)
    return evaluation


def shown_inputs(task: Task, records: Records) -> list[dict[str, Any]]:
    """Return for each record the columns that the task reads, for people: long texts are truncated."""
    columns = {name: records.columns[role] for role, name in task.input_columns().items() if role in records.columns}

    def cut(value: Any) -> Any:
        return f"{value[:SHOWN_CHARACTERS]} …" if isinstance(value, str) and len(value) > SHOWN_CHARACTERS else value

    return [{name: cut(values[index]) for name, values in columns.items()} for index in range(len(records))]


def task_records(run: Run, data: str = "") -> tuple[Task, Records]:
    """Return a run's task with the columns of a file of records, and the records; by default those of the recipe.

    Raises:
        UserError: A metric does not apply to the task, a record is invalid, or the recipe's file was replaced.
    """
    task, data = with_columns(cast("Task", run.recipe.task), data)
    check_scores(task)
    recipe = run.recipe.model_copy(update={"task": task})
    records = read_split(recipe, "validation", data)
    if not data:
        check_held_out(run.directory, {"data.validation": records.sha256})
    return task, task.filter_records(records)


def task_metrics(run: Run, model: Transformer, task: Task, records: Records) -> tuple[dict[str, Metric], list[Any]]:
    """Return the metrics of a model on labelled records, and its answer to each."""
    build = unanswered if isinstance(task, WritingTask) else examples_of
    examples = build(model, task, run, records)
    found = predictions(model, task, examples, run)
    answers = task.answers(found, examples, OffsetTokenizer(run.tokenizer, run.vocabulary), records)
    references = task.references(records)
    metrics = {name: scored(name, task, answers, references, records, found) for name in task.metric_names}
    if isinstance(task, WritingTask):
        metrics |= answers_loss(model, task, examples_of(model, task, run, records), run)
    return metrics, answers


def with_columns(task: Task, data: str) -> tuple[Task, str]:
    """Apply the options after the name of a file, ``FILE?text=sentence&metrics=f1``, to a task.

    Returns:
        The task with these columns and metrics, and the name of the file. A name without such options is returned as
        it is: its "?" may belong to it.

    Raises:
        UserError: The task has no such option.
    """
    place, _, rest = data.rpartition("?")
    named = [part.partition("=")[::2] for part in rest.split("&")]
    form = dict(named).get(FORM)
    if place and form and len(named) > 1:
        named, place = [(key, value) for key, value in named if key != FORM], f"{place}?{FORM}={form}"
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
    """Check that every metric of a task exists and applies to it.

    Raises:
        UserError: A metric is unknown, or needs classes or groups that the task does not have.
    """
    for name in task.metric_names:
        inputs = score_named(name).inputs
        if inputs in ("groups", "probabilities") and not isinstance(task, TextClassification):
            raise UserError(
                f"The score {name!r} needs classes, which {task.name} does not have.", "Choose another score."
            )
        if inputs == "groups" and isinstance(task, TextClassification) and not task.group:
            message = f"The score {name!r} needs groups of records, and the recipe has no task.group."
            raise UserError(message, 'Name the columns that identify a group: task.group=["question"]')


def scored(
    name: str, task: Task, answers: Sequence[Any], references: Sequence[Any], records: Records, found: NDArray[Any]
) -> Metric:
    """Compute one metric of a task.

    Classes are passed by index, so that the second class is the positive one.

    Args:
        name: Name of the metric.
        task: The task.
        answers: Predicted label, number, tags or text of each record.
        references: References, in the same form.
        records: The records.
        found: (N, …) raw predictions of the task, of which classes use the probabilities.
    """
    if isinstance(task, MultipleChoice) and name == "accuracy":
        return mean(_credits(task, references, records, found), "share", "higher")
    score = score_named(name)
    number = {label: place for place, label in enumerate(getattr(task, "labels", ()))}
    if score.inputs in ("labels", "groups", "probabilities"):
        answers, references = ([number.get(one, one) for one in some] for some in (answers, references))
    if not isinstance(task, TextClassification):
        return score(answers, references)
    if score.inputs == "groups":
        return score(answers, references, task.groups(records))
    if score.inputs == "probabilities":
        return score(found, references)
    return (
        score(answers, references, task.judged_classes())
        if score.classes and task.none_label
        else score(answers, references)
    )


def _credits(task: MultipleChoice, references: Sequence[Any], records: Records, found: NDArray[Any]) -> list[float]:
    """Return for each record the probability that its choice is right, with ties among the (M,) choices of all."""
    names = task.names_of(records)
    scores = np.split(found, np.cumsum([len(some) for some in names])[:-1])
    return [
        credit(some, {place for place, one in enumerate(labels) if str(one) == right})
        for some, labels, right in zip(scores, names, references, strict=True)
    ]


def examples_of(model: Transformer, task: Task, run: Run, records: Records) -> Examples:
    """Return the records as tokenized examples, as the run was trained on them."""
    return task.examples(records, OffsetTokenizer(run.tokenizer, run.vocabulary), model.config, reading_length(run))


def unanswered(
    model: Transformer, task: Task, run: Run, records: Records, encoder: OffsetTokenizer | None = None
) -> Examples:
    """Return the records as examples that are to be answered, which do not depend on the right answers.

    With them, a long prompt would lose as many tokens as its answer needs. A decoder with a table of positions keeps
    room there for the answer that it writes.

    Args:
        model: that answers.
        task: of the run.
        run: that trained the model.
        records: with or without answers.
        encoder: that encodes the texts; None for the run's, to which names of special tokens are text.
    """
    length, limit = reading_length(run), model.config.positions.limit
    if isinstance(task, WritingTask) and model.encoder is None and limit is not None:
        length = min(length, max(limit - task.longest_answer, limit // 2))
    encoder = encoder or OffsetTokenizer(run.tokenizer, run.vocabulary)
    return task.examples(task.unlabelled(records), encoder, model.config, length)


def reading_length(run: Run) -> int:
    """Return the number of tokens of an example at most: of an import all that it was made for."""
    own = run.recipe.data.length
    if isinstance(run.recipe.task, SentenceEmbedding):  # a limit of its own, as in sentence-transformers
        return own
    return max(own, run.recipe.model.positions.length or 0) if run.recipe.imported_from else own


def answers_loss(model: Transformer, task: Task, examples: Examples, run: Run) -> dict[str, Metric]:
    """Compute the loss per token of the reference texts, in nats, and its perplexity.

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
    """Return the task's raw predictions of all examples, in their order.

    Returns:
        (N, …) predictions; depending on the task, probabilities, numbers, tags or token ids.
    """
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
