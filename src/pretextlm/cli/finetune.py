"""`pretextlm finetune RECIPE`: train a model on examples with labels, then measure it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from pretextlm.cli.options import DryRun, Resume, RunDirectory

if TYPE_CHECKING:
    from pretextlm.tasks.base import Task


def finetune(
    recipe: Annotated[Path, typer.Argument(help="TOML recipe of a task, for example recipes/tasks/sst2.toml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, as TOML: training.learning_rate=5e-5 start=runs/mine")
    ] = None,
    out: RunDirectory = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json's content on stdout.")] = False,
) -> None:
    """Fine-tune one model by a recipe, and score it on the validation records.

    The recipe names files and columns, none is guessed:

    [data]  train = "train.jsonl"  validation = "dev.jsonl"

    [task]  name = "text_classification"  text = "sentence"  label = "label"

    and the run to start from: start = "runs/mine". Without it, data.tokenizer = "runs/mine" trains the same Transformer
    from scratch. Tasks: text_classification, text_regression, multiple_choice, token_classification,
    question_answering; sentence_embedding (anchor and positive, judged by scored pairs); instruction (a prompt with
    columns in braces, the loss on the answer alone) and text_to_text (source and target with a task's prefix), judged
    by what is written.

    [task] teacher = "runs/large" learns classes from the soft answers of a fine-tuned run, too.

    [tuning] says what is trained: freeze = ["trunk"] for the head alone, layer_decay, thaw, lora = {rank = 8}.

    The batch is counted in examples (training.batch_rows), the budget in epochs unless told otherwise. Examples share
    rows without padding. Every wrong record is refused by file and row before training.
    """
    from pretextlm.cli.evaluate import evaluate
    from pretextlm.cli.pretrain import read_recipe, train_or_rehearse
    from pretextlm.errors import UserError

    loaded, directory = read_recipe(recipe, overrides or [], out)
    if not loaded.is_task:
        raise UserError(f"{recipe} has no table [task].", "An objective is trained by: pretextlm pretrain RECIPE")
    from pretextlm.evaluation.labelled import check_scores

    check_scores(cast("Task", loaded.objective))
    if train_or_rehearse(loaded, directory, resume=resume, dry_run=dry_run, as_json=as_json):
        evaluate(directory, as_json=as_json)
