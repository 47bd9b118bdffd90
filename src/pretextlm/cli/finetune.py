"""`pretextlm finetune RECIPE`: train a model on labelled examples, then score it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretextlm.cli.shared.options import DryRun, Resume, RunDirectory
from pretextlm.names import directory_name

if TYPE_CHECKING:
    from pretextlm.grid import Grid

GRID = "Grid"
"""Section of the help."""


def finetune(
    recipe: Annotated[Path, typer.Argument(help="TOML recipe of a task, or the name of a shipped one, as tasks/sst2.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, as TOML: training.learning_rate=5e-5 start=runs/mine")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="How the labelled files are written, if not as their suffix says: squad, nsmc, klue_ner, …"),
    ] = None,
    out: RunDirectory = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    grid: Annotated[
        bool,
        typer.Option("--grid", help="A study: learning rates 2e-5, 3e-5, 5e-5 × seeds.", rich_help_panel=GRID),
    ] = False,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SETTING=VALUE,…",
            help="A setting of the grid with its values; may be repeated.",
            rich_help_panel=GRID,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds of the grid; by default 1,2,3.", rich_help_panel=GRID)
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help="Runs of the grid at a time, each with its share.", rich_help_panel=GRID)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json's content on stdout.")] = False,
) -> None:
    """Fine-tune one model by a recipe, and score it on the validation records.

    The recipe names files and columns; nothing is guessed:

    [data]  train = "train.jsonl"  validation = "dev.jsonl"

    [task]  name = "text_classification"  text = "sentence"  label = "label"

    Files as their owners distribute them: --form NAME (data.form). It is the name of the recipe for them: cola, sst2,
    mrpc, qqp, stsb, mnli, qnli, rte, wnli; squad, squad_v2, korquad; klue_ynat, klue_nli, klue_sts, klue_ner, klue_re,
    klue_dp, klue_mrc; kobest_boolq, kobest_copa, kobest_hellaswag, kobest_sentineg, kobest_wic; nsmc, kornli, korsts;
    conll2003, wnut17, conllu; or csv, tsv, quoted_tsv, json, jsonl whatever the suffix. data.on_error="skip" leaves
    out bad and empty rows, and counts them.

    and the run to start from: start = "runs/mine". Without it, data.tokenizer = "runs/mine" trains the same Transformer
    from scratch. Tasks: text_classification, multi_label_classification, text_regression, multiple_choice,
    token_classification, question_answering; sentence_embedding (anchor and positive, scored on rated pairs);
    instruction (a prompt with columns in braces, the loss on the answer alone) and text_to_text (source and target with
    a task prefix), both scored on generated text.

    [task] teacher = "runs/large" also distills classes from the soft labels of a fine-tuned run.

    [tuning] selects the trained parameters: freeze = ["trunk"] for the head alone, layer_decay, thaw, lora = {rank =
    8}.

    The batch is counted in examples (training.batch_rows), the budget in epochs by default. Examples are packed into
    rows without padding. Every malformed record is reported by file and row before training.

    --grid trains with three learning rates and three seeds; --vary training.learning_rate=2e-5,5e-5
    --vary training.batch_rows=16,32 --vary training.budget_epochs=2,3,4 tries other values, in every combination. The
    result is a study, studies/NAME-grid, with means, standard deviations, the best point and a report; the same command
    resumes it.
    """
    if form is not None:
        overrides = [*(overrides or []), f"data.form={json.dumps(form)}"]
    if grid or vary or seeds or jobs is not None:
        points = _points(grid, vary or [], dry_run)
        _grid(recipe, overrides or [], points, seeds, out, as_json, 1 if jobs is None else jobs)
        return
    from pretextlm.cli.evaluate import evaluate
    from pretextlm.cli.pretrain import load_recipe, train_or_dry_run
    from pretextlm.errors import UserError

    loaded, directory = load_recipe(recipe, overrides or [], out)
    if loaded.task is None:
        raise UserError(f"{recipe} has no table [task].", "An objective is trained by: pretextlm pretrain RECIPE")
    from pretextlm.evaluation.task_evaluation import check_scores

    check_scores(loaded.task)
    if train_or_dry_run(loaded, directory, resume=resume, dry_run=dry_run, as_json=as_json):
        evaluate(directory, as_json=as_json)


def _points(defaults: bool, vary: list[str], dry_run: bool) -> Grid:
    """Returns the settings of a grid with their values.

    Raises:
        UserError: none are given.
    """
    from pretextlm.errors import UserError
    from pretextlm.study.grid import RATES, parse_grid

    if dry_run:
        raise UserError("--dry-run is of one run, not of a grid.", "Leave out --grid, --vary, --seeds and --jobs.")
    points = {**(RATES if defaults else {}), **parse_grid(vary)}
    if not points:
        hint = "Add --grid, or --vary training.learning_rate=2e-5,5e-5."
        raise UserError("--seeds and --jobs alone make no grid.", hint)
    return points


def _grid(
    recipe: Path, overrides: list[str], points: Grid, seeds: str | None, out: Path | None, as_json: bool, jobs: int
) -> None:
    """Train and score every point of a grid with every seed."""
    from pretextlm.cli.compare import run_study
    from pretextlm.config import read_toml
    from pretextlm.shipped_recipes import recipe_file
    from pretextlm.study.grid import SEEDS, grid_plan, parse_seeds
    from pretextlm.training.recipe import overridden

    values = overridden(read_toml(recipe_file(recipe)), overrides)
    plan = grid_plan(values, points, SEEDS if seeds is None else parse_seeds(seeds), str(recipe))
    run_study(plan, out or Path("studies") / directory_name(plan.name, "study"), as_json, jobs)
