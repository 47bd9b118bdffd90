"""`pretextlm pretrain RECIPE`: train a model from a recipe into a run directory."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import echo, print_json, stderr
from pretextlm.cli.shared.options import DryRun, Resume, RunDirectory

if TYPE_CHECKING:
    from rich.progress import Progress

    from pretextlm.hf.export_format import ExportFormat
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.run_directory import Run


def pretrain(
    recipe: Annotated[Path, typer.Argument(help="TOML recipe, or the name of a shipped one (pretextlm recipes).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, as TOML: training.learning_rate=1e-3 objective.rate=0.3")
    ] = None,
    out: RunDirectory = None,
    resume: Resume = False,
    dry_run: DryRun = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run's cost and last losses as JSON; with --dry-run, its numbers.")
    ] = False,
) -> None:
    """Pre-train one model by a recipe.

    The first line says how the run can be exported. --dry-run prints that, parameters, memory, steps, tokens, FLOPs,
    expected time and disk; nothing is written.
    Several processes: torchrun --nproc-per-node 8 -m pretextlm pretrain RECIPE (docs/scaling.md).
    training.trackers=["tensorboard"] logs the metrics elsewhere too ("wandb", "trackio").

    start=RUN initializes from the newest weights of another run, for example an imported one, and takes its model
    shape. Its loss on that run's text is measured during training (forgetting); data.forgetting_stores=["STORE"] names
    other text, [] none. Ctrl-C (or SIGTERM, SIGHUP, SIGUSR1; or the time training.stop_at=2h30m) saves a checkpoint
    and exits; --resume continues, bit for bit on a CPU, also to a larger budget.
    """

    loaded, directory = load_recipe(recipe, overrides or [], out, resume)
    run = train_or_dry_run(loaded, directory, resume=resume, dry_run=dry_run, as_json=as_json)
    if run is None:
        return
    from pretextlm.evaluation.forgetting import lines, note_forgetting

    last = {line["kind"]: line for line in run.metrics() if line["kind"] != "forgetting"}
    forgotten, about = note_forgetting(directory)
    if as_json:
        found = {"run": str(directory), "last": last, "cost": run.cost()}
        print_json({**found, "forgotten": forgotten} if forgotten else found)
    else:
        loss = last.get("validation", last.get("train", {})).get("loss")
        echo(f"{directory}: loss {loss:.4f}" if loss is not None else str(directory))
        for line in lines(forgotten, about):
            echo(line)


def load_recipe(file: Path, overrides: list[str], out: Path | None, resume: bool = False) -> tuple[Recipe, Path]:
    """Returns (the recipe with its overrides, its run directory)."""
    from pretextlm.config import read_toml
    from pretextlm.shipped_recipes import recipe_file
    from pretextlm.training.distributed import report_once
    from pretextlm.training.initial_weights import resolve_recipe
    from pretextlm.training.recipe import overridden

    with report_once():
        named = str(overridden(read_toml(recipe_file(file)), overrides).get("name", "run"))
        loaded = resolve_recipe(file, overrides, (out or Path("runs") / named) if resume else None)
    return loaded, out or Path("runs") / loaded.name


def train_or_dry_run(recipe: Recipe, directory: Path, *, resume: bool, dry_run: bool, as_json: bool) -> Run | None:
    """Returns the trained run; None after a dry run, and on processes other than the first."""
    from pretextlm.training.distributed import is_main_process
    from pretextlm.training.pretrain import pretrain as train
    from pretextlm.training.runtime import tune_process
    from pretextlm.training.signals import Stopped

    tune_process()
    if dry_run:
        _dry_run(recipe, directory, as_json)
        return None
    with TrainingDisplay(recipe.name) as display:
        if not resume and is_main_process():
            display.note(str(how_it_leaves(recipe)))
        try:
            run = train(recipe, directory, resume=resume, command=["pretextlm", *sys.argv[1:]], progress=display)
        except Stopped as stopped:
            display.note(f"{stopped}; saved. Go on with --resume.")
            raise typer.Exit(stopped.exit_code) from None
    return run if is_main_process() else None


def how_it_leaves(recipe: Recipe) -> ExportFormat:
    """Returns how a run will be exported.

    Raises:
        UserError: there is no such store or tokenizer.
    """
    import warnings

    from pretextlm.data.store import Store
    from pretextlm.data.tokenizer import load_tokenizer, vocabulary_of
    from pretextlm.hf.export_format import export_format
    from pretextlm.hf.provenance import origin_of
    from pretextlm.training.corpus import tokenizer_place

    if recipe.task is None:
        vocabulary = Store.open(Path(recipe.data.store)).vocabulary
    else:
        vocabulary = vocabulary_of(load_tokenizer(tokenizer_place(recipe)))
    origin = origin_of(Path(recipe.start)) if recipe.start else None
    pad = recipe.model.special_token_ids.apply(vocabulary).pad
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")  # the labels are not read yet
        return export_format(recipe.with_vocabulary(vocabulary), pad, origin=origin.family if origin else None)


def _dry_run(recipe: Recipe, directory: Path, as_json: bool) -> None:
    from pretextlm.cli.shared.dry_run import show
    from pretextlm.training.distributed import is_main_process
    from pretextlm.training.dry_run import dry_run as measure

    found = measure(recipe, directory)
    if is_main_process():
        found["export"] = str(how_it_leaves(recipe))
        print_json(found) if as_json else show(found)


class TrainingDisplay:
    """A bar with loss, rate and time left on a terminal; occasional lines if stderr is a file."""

    def __init__(self, title: str) -> None:

        self.title, self.console = title, stderr()
        self._bar: Progress | None = None
        self._task: Any = None
        self._printed = 0.0

    def __enter__(self) -> TrainingDisplay:
        from pretextlm.training.distributed import is_main_process

        if self.console.is_terminal and is_main_process():
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn(
                    "{task.percentage:>3.0f}%  loss {task.fields[loss]:.3f}  {task.fields[rate]:>9,.0f} tokens/s",
                    markup=False,
                ),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(self.title, total=1.0, loss=float("nan"), rate=0.0)
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, share: float, values: Mapping[str, float]) -> None:
        """Called after every step of the trainer."""
        if self._bar:
            self._bar.update(
                self._task, completed=share, loss=values["loss"], rate=values["tokens"] / values["seconds"]
            )
        elif values["seconds"] - self._printed > 10 or share >= 1:
            self._printed = values["seconds"]
            rate = values["tokens"] / values["seconds"]
            self.note(f"{share:4.0%}  step {values['step']:,}  loss {values['loss']:.3f}  {rate:,.0f} tokens/s")

    def note(self, text: str) -> None:
        """Print a line, from the first process alone."""
        from pretextlm.training.distributed import is_main_process

        if not is_main_process():
            return
        self.console.print(f"{self.title}: {text}")
