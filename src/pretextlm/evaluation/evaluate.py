"""Evaluate a run: its own measures, the common ruler, and samples to read, written into the run directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pretextlm.data.store import Store, sha256_of
from pretextlm.errors import UserError
from pretextlm.evaluation.blanks import Blank, answer_blanks, blank_metrics, blank_samples, make_blanks
from pretextlm.evaluation.cloze import Filler, TokenTexts, can_fill, filler
from pretextlm.evaluation.forgetting import forgetting
from pretextlm.evaluation.held_out_metrics import HeldOut, intrinsic_metrics
from pretextlm.evaluation.prompts import prompt_samples
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.files import write_json, write_whole
from pretextlm.metric import Metric
from pretextlm.training.held_out import MAX_TOKENS, held_out_documents
from pretextlm.training.run_directory import Run

if TYPE_CHECKING:
    import torch

    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective


def evaluate_run(
    directory: Path,
    *,
    store: Path | None = None,
    max_documents: int | None = None,
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[str], None] | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Measure the newest checkpoint of a run; writes and returns evaluation.json, and writes samples.jsonl.

    What a model cannot do is left out, and named under "notes". A distilled model is measured by the objective its
    teacher shares; the teacher is not needed.

    Args:
        directory: the run.
        store: prepared with the same tokenizer, or of a fine-tuned run a file of records; by default the one the run
            was trained (or validated) on.
        max_documents: validation documents measured; by default what the run's recipe says.
        max_tokens: the fewer of the two limits counts.
        progress: told in a few words what is being done.

    Raises:
        UserError: the run has no checkpoint, or the store another tokenizer or no held-out text.
    """
    say = progress or (lambda text: None)
    run = Run.open(directory)
    if run.recipe.task is not None:
        say("answers")
        return evaluate_task(run, str(store or ""), device)
    settings = run.recipe.evaluation
    opened = open_store(run, store)
    split = held_out_documents(opened.validation, max_documents or settings.documents, max_tokens)
    model, objective, texts = open_trained(run, device)
    way = filler(model, objective, texts) if can_fill(model, objective) else None
    notes: list[str] = []
    metrics: dict[str, Metric] = {}
    say("loss and the objective's own measures")
    held_out = HeldOut(
        model, objective, texts.vocabulary, split, run.recipe.data.length, settings.seed, way, opened.validation
    )
    try:
        metrics |= intrinsic_metrics(held_out)
    except UserError as error:
        notes.append(f"no measures of its own: {error.message}")
    samples: list[dict[str, Any]] = []
    blanks: list[Blank] = []
    if way is None:
        notes.append(f"no blanks: {objective.name} with these options does not fill any")
    else:
        say("blanks")
        blanks = make_blanks(opened, texts, settings.blanks, settings.seed)
    if way is not None and blanks:
        results = answer_blanks(way, blanks)
        metrics |= blank_metrics(results, texts)
        samples += blank_samples(results, texts)
    forgotten, remembered = forgetting(run)
    metrics |= forgotten
    say("prompts")
    samples += prompt_samples(way, opened.validation, settings.prompts, settings.seed)
    evaluation = {
        "metrics": {name: metric.plain() for name, metric in metrics.items()},
        "settings": {
            "store": str(opened.path),
            "documents": split.num_documents,
            "tokens": split.num_tokens,
            "blanks": len(blanks),
            "seed": settings.seed,
            **({"remembered": remembered} if remembered else {}),
        },
    }
    if notes:
        evaluation["notes"] = notes
    lines = [json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples]
    write_whole(directory / "samples.jsonl", "".join(lines))
    write_json(directory / "evaluation.json", evaluation)
    return evaluation


def open_trained(run: Run, device: torch.device | None = None) -> tuple[Transformer, Objective, TokenTexts]:
    """The run's newest model, the objective it is measured by, and its tokens.

    Raises UserError when there is no checkpoint.
    """
    objective = cast("Objective", run.recipe.training_objective.at_evaluation())
    return run.load_model(device), objective, TokenTexts(run.tokenizer, run.vocabulary)


def open_filler(run: Run, device: torch.device | None = None) -> Filler:
    """The run's newest model as one that fills blanks.

    Raises UserError when there is no checkpoint, or the model does not fill blanks.
    """
    return filler(*open_trained(run, device))


def open_store(run: Run, place: Path | None = None) -> Store:
    """The store that a run is measured on; by default its own. Raises UserError when it has another tokenizer."""
    store = Store.open(place or Path(run.recipe.data.store))
    if sha256_of(store.path / "tokenizer.json") != sha256_of(run.directory / "tokenizer.json"):
        raise UserError(
            f"{store.path} was prepared with another tokenizer than the run {run.directory}.",
            f"Prepare the text with the run's: pretextlm data prepare … --tokenizer {run.directory / 'tokenizer.json'}",
        )
    return store
