"""Answers of a fine-tuned run for records without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.predict_input import Texts, read_inputs, records_of
from pretextlm.evaluation.scores.spans import spans_of
from pretextlm.evaluation.task_evaluation import predictions, unanswered
from pretextlm.files import AnyPath
from pretextlm.memory import memory_errors
from pretextlm.tasks.token_classification import OUTSIDE, TokenClassification
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device

if TYPE_CHECKING:
    from pretextlm.data.examples import Examples

BATCH_RECORDS = 512
"""Records that are answered between two calls of `progress`."""
UNLIMITED = 1 << 30
"""A length that no text reaches, in tokens."""


@memory_errors("while predicting", "Give shorter texts; one is cut at data.length tokens of the run's recipe.")
def predict(
    run: AnyPath,
    texts: Texts | None = None,
    *,
    file: str | None = None,
    parse_special_tokens: bool = False,
    device: Device = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Returns the answers of a fine-tuned run, one per record, computed in fp32 with its newest weights.

    An answer does not depend on the other records, up to rounding.

    Args:
        run: the run, or its directory.
        texts: one or more texts if the task reads one column, otherwise one or more records as mappings, for example
            `{"premise": …, "hypothesis": …}`. A list of "column=text" for each column is one record, too.
        file: a file of records instead; its columns have the names in the recipe, or those in FILE?text=review. A .txt
            file has a text a line.
        parse_special_tokens: the name of a special token in a text ("[SEP]", "<|im_start|>") is that token, as in
            transformers; otherwise it is text.
        device: "cpu", "cuda" or "auto".
        progress: called with the number of records answered and their total number.

    Returns:
        For each record its "row", the "answer" and details: the "probabilities" of classes and choices; of tags the
        "text", its "tokens" with their characters ("offsets") and probabilities ("scores"), and the "names" that the
        tags mark: type, text, score (mean probability of its tags), and characters from start to end, which the span
        that answers a question also has. A "note" says what of a text that is too long was not read, or that it was
        read in windows; "step" and "broken_checkpoints" if the newest weights could not be used.

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
    imported = bool(run.recipe.imported_from)
    if file is not None:
        task, records = read_inputs(task, file, imported)
    else:
        task, records = records_of(task, [] if texts is None else texts, imported)
    records = task.unlabelled(records)
    model = run.load_model(as_device(device))
    encoder = OffsetTokenizer(run.parsing_tokenizer if parse_special_tokens else run.tokenizer, run.vocabulary)
    found: list[dict[str, Any]] = []
    for begin in range(0, len(records), BATCH_RECORDS):
        some = records.take(range(begin, min(begin + BATCH_RECORDS, len(records))))
        examples = unanswered(model, task, run, some, encoder)
        complete = task.examples(some, encoder, model.config, UNLIMITED)
        answers = task.explain(predictions(model, task, examples, run), examples, encoder, some)
        if isinstance(task, TokenClassification):
            _add_names(answers, task.labels)
        for note, answer in zip(_notes(examples, complete, len(some)), answers, strict=True):
            answer |= {"note": note} if note else {}
        found += [{"row": int(row), **one, **run.fallback} for row, one in zip(some.rows, answers, strict=True)]
        if progress:
            progress(len(found), len(records))
    return found


def _notes(examples: Examples, complete: Examples, count: int) -> list[str]:
    """Returns what is to be said about the length of each record; "" for one that was read as it is.

    Args:
        examples: of the records, at the run's length.
        complete: the same without a limit.
        count: number of records.
    """
    windows = np.bincount(examples.records, minlength=count).tolist()
    read, tokens = (
        np.bincount(some.records, weights=np.diff(some.offsets), minlength=count).astype(int).tolist()
        for some in (examples, complete)
    )
    return [
        f"read in {parts} windows" if parts > 1 else f"{some:,} of {size:,} tokens were read" if some < size else ""
        for parts, some, size in zip(windows, read, tokens, strict=True)
    ]


def _add_names(answers: Sequence[dict[str, Any]], labels: Sequence[str]) -> None:
    """Adds to each answer the names that its tags mark, unless the tags are such as mark none (parts of speech).

    Tags without B- and I- mark names if one of them is O: neighbours of one tag are then one name.
    """
    marked = [label for label in labels if label != OUTSIDE]
    bare = not any(label[:2] in ("B-", "I-", "S-", "U-") for label in marked)
    if bare and len(marked) == len(labels):
        return
    tags = [[f"I-{tag}" if bare and tag != OUTSIDE else tag for tag in one["answer"]] for one in answers]
    for one, spans in zip(answers, spans_of(tags), strict=True):
        one["names"] = [_name(one, kind, first, stop) for kind, first, stop in spans]


def _name(answer: dict[str, Any], kind: str, first: int, stop: int) -> dict[str, Any]:
    """Returns the name of the tokens from `first` to `stop`, which is excluded."""
    scores = [score for score in answer["scores"][first:stop] if score is not None]
    start, end = answer["offsets"][first][0], answer["offsets"][stop - 1][1]
    score = math.fsum(scores) / len(scores) if scores else None
    return {"type": kind, "text": answer["text"][start:end], "score": score, "start": start, "end": end}
