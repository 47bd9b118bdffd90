"""Evaluate a run: its own measures, the common blank-filling benchmark, and samples to read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.evaluation.blank_benchmark import (
    Question,
    answer_questions,
    blank_metrics,
    blank_samples,
    make_questions,
)
from pretextlm.evaluation.forgetting import forgetting
from pretextlm.evaluation.held_out_metrics import HeldOut, by_source, held_out_metrics
from pretextlm.evaluation.prompts import prompt_samples
from pretextlm.evaluation.result_files import EVALUATION, ResultFiles
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.evaluation.trained_model import open_store, open_trained, weights_used
from pretextlm.files import AnyPath, write_json, write_text
from pretextlm.hf.untrained import untrained_heads
from pretextlm.memory import memory_errors
from pretextlm.metric import Metric
from pretextlm.training.held_out import held_out_documents, what_was_read
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device


@memory_errors("while evaluating", "Rows have up to data.length tokens of the run's recipe: give it a smaller one.")
def evaluate(
    run: AnyPath,
    *,
    store: AnyPath | None = None,
    documents: int | None = None,
    tokens: int | None = None,
    progress: Callable[[str], None] | None = None,
    device: Device = "cpu",
) -> dict[str, Any]:
    """Measures the newest checkpoint of a run, and writes evaluation.json and samples.jsonl into its directory.

    Results on another store or file than the run's own are written into evaluation-NAME.json and samples-NAME.jsonl.
    Measures that do not apply to a model are left out, with the reason under "notes". A distilled model is measured by
    the objective that it shares with its teacher, which is not needed.

    Args:
        run: the run, or its directory.
        store: prepared with the same tokenizer, or of a fine-tuned run a file of records; by default the one the run
            was trained (or validated) on.
        documents: largest number of validation documents to sample; 0: all. By default as the run's recipe says.
        tokens: about how many tokens of complete documents to sample; 0: all. By default as the run's recipe says.
        progress: called with a few words at each stage.
        device: "cpu", "cuda" or "auto".

    Returns:
        The content of evaluation.json.

    Raises:
        UserError: the run has no checkpoint, or the store another tokenizer or no held-out text; or limits are given
            for a task.
    """
    say = progress or (lambda text: None)
    run, place = Run.open(run), as_device(device)
    directory = run.directory
    if run.recipe.task is not None:
        if documents is not None or tokens is not None:
            raise UserError(
                "A task is evaluated on all records of a file: numbers of documents and tokens are of held-out text.",
                "Leave out --documents and --tokens.",
            )
        say("answers")
        return evaluate_task(run, os.fspath(store or ""), place)
    limits = {"documents": documents, "tokens": tokens}
    settings = run.recipe.evaluation.model_copy(update={k: v for k, v in limits.items() if v is not None})
    opened = open_store(run, None if store is None else Path(store))
    files = ResultFiles.of(directory, os.fspath(store or ""), run.recipe.data.store)
    model, objective, texts = open_trained(run, place)
    full = objective.documents(opened.validation)
    split = held_out_documents(full, settings)
    scorer = objective.scorer(model, texts)
    untrained = sorted(untrained_heads(run))
    notes = [f"not in the imported checkpoint and untrained, so that its measures are random: {', '.join(untrained)}"]
    notes = notes if untrained else []
    sources: dict[str, Any] = {}
    metrics: dict[str, Metric] = {}
    say("loss and the objective's own measures")
    held_out = HeldOut(model, objective, texts.vocabulary, split, run.recipe.data.length, settings.seed, scorer, full)
    try:
        metrics |= held_out_metrics(held_out)
        sources = by_source(held_out, [source["name"] for source in opened.manifest["sources"]])
        notes += [held_out.rows.left_out] if held_out.rows.left_out else []
    except UserError as error:
        notes.append(f"no measures of its own: {error.message}")
    samples: list[dict[str, Any]] = []
    questions: list[Question] = []
    if scorer is None:
        notes.append(f"no blanks: {objective.name} with these options does not fill any")
    else:
        say("blanks")
        questions = make_questions(opened, texts, settings.blanks, settings.seed)
    if scorer is not None and questions:
        answers = answer_questions(scorer, questions)
        metrics |= blank_metrics(answers, texts)
        samples += blank_samples(answers, texts)
    forgotten, monitored = forgetting(run) if files.is_own else ({}, {})
    metrics |= forgotten
    say("prompts")
    samples += prompt_samples(scorer, full, settings.prompts, settings.seed)
    evaluation: dict[str, Any] = {
        "metrics": {name: metric.plain() for name, metric in metrics.items()},
        "settings": {
            **weights_used(run),
            "store": str(opened.path),
            "measured_on": files.place,
            "file": files.path(EVALUATION).name,
            **what_was_read(split, full),
            "blanks": len(questions),
            "seed": settings.seed,
            **({"forgetting": monitored} if monitored else {}),
        },
    }
    if sources:
        evaluation["sources"] = sources
    if notes:
        evaluation["notes"] = notes
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    write_text(files.path("samples.jsonl"), "".join(lines))
    write_json(files.path(EVALUATION), evaluation)
    return evaluation
