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
from pretextlm.evaluation.held_out_metrics import HeldOut, held_out_metrics
from pretextlm.evaluation.prompts import prompt_samples
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.evaluation.trained_model import open_store, open_trained
from pretextlm.files import AnyPath, write_json, write_text
from pretextlm.metric import Metric
from pretextlm.training.held_out import MAX_TOKENS, held_out_documents
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device


def evaluate(
    run: AnyPath,
    *,
    store: AnyPath | None = None,
    documents: int | None = None,
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[str], None] | None = None,
    device: Device = "cpu",
) -> dict[str, Any]:
    """Measures the newest checkpoint of a run, and writes evaluation.json and samples.jsonl into its directory.

    Measures that do not apply to a model are left out, with the reason under "notes". A distilled model is measured by
    the objective that it shares with its teacher, which is not needed.

    Args:
        run: the run, or its directory.
        store: prepared with the same tokenizer, or of a fine-tuned run a file of records; by default the one the run
            was trained (or validated) on.
        documents: validation documents measured; by default the number in the run's recipe.
        max_tokens: the fewer of the two limits counts.
        progress: called with a few words at each stage.
        device: "cpu", "cuda" or "auto".

    Returns:
        The content of evaluation.json.

    Raises:
        UserError: the run has no checkpoint, or the store another tokenizer or no held-out text.
    """
    say = progress or (lambda text: None)
    run, place = Run.open(run), as_device(device)
    directory = run.directory
    if run.recipe.task is not None:
        say("answers")
        return evaluate_task(run, os.fspath(store or ""), place)
    settings = run.recipe.evaluation
    opened = open_store(run, None if store is None else Path(store))
    split = held_out_documents(opened.validation, documents or settings.documents, max_tokens)
    model, objective, texts = open_trained(run, place)
    scorer = objective.scorer(model, texts)
    notes: list[str] = []
    metrics: dict[str, Metric] = {}
    say("loss and the objective's own measures")
    held_out = HeldOut(
        model, objective, texts.vocabulary, split, run.recipe.data.length, settings.seed, scorer, opened.validation
    )
    try:
        metrics |= held_out_metrics(held_out)
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
    forgotten, monitored = forgetting(run)
    metrics |= forgotten
    say("prompts")
    samples += prompt_samples(scorer, opened.validation, settings.prompts, settings.seed)
    evaluation = {
        "metrics": {name: metric.plain() for name, metric in metrics.items()},
        "settings": {
            "store": str(opened.path),
            "documents": split.num_documents,
            "tokens": split.num_tokens,
            "blanks": len(questions),
            "seed": settings.seed,
            **({"forgetting": monitored} if monitored else {}),
        },
    }
    if notes:
        evaluation["notes"] = notes
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    write_text(directory / "samples.jsonl", "".join(lines))
    write_json(directory / "evaluation.json", evaluation)
    return evaluation
