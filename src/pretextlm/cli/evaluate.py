"""`pretextlm evaluate RUN`: measure a run's newest checkpoint and write evaluation.json and samples.jsonl."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm pretrain` wrote it.")],
    store: Annotated[
        Path | None,
        typer.Option(
            help="Store to measure on, prepared with the run's tokenizer. By default the one it was trained on."
        ),
    ] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, help="Held-out documents to measure; by default as the run's recipe says.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json's content on stdout.")] = False,
) -> None:
    """Measure a trained model on held-out text.

    Every model fills the same blanks, in the way it was trained for: it writes the missing words itself, and weighs the
    right ones against nine others (a blind choice is right one time in ten). On top come the objective's own measures,
    such as bits per byte, pseudo-perplexity or spans written back exactly. A model that was not trained to fill blanks
    has its own measures only. The result goes into the run directory.
    """
    from pretextlm.cli.console import print_json, stderr

    console = stderr()
    with console.status("opening the run") as status:
        from pretextlm.training.runtime import tune_process

        tune_process()
        from pretextlm.evaluation.evaluate import evaluate_run

        result = evaluate_run(run, store=store, max_documents=documents, progress=status.update)
    if as_json:
        print_json(result)
    else:
        _show(run, result)


def _show(run: Path, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{run}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("± standard error", justify="right")
    table.add_column("unit")
    table.add_column("measured on", justify="right")
    for name, metric in result["metrics"].items():
        error = "" if metric["stderr"] is None else f"{metric['stderr']:.4f}"
        arrow = "↓" if metric["better"] == "lower" else "↑"
        table.add_row(f"{name} {arrow}", f"{metric['value']:.4f}", error, metric["unit"], f"{metric['n']:,}")
    console = Console()
    console.print(table)
    chance = " A blind blank_choice is right 0.1 of the time." if result["settings"]["blanks"] else ""
    console.print(f"↓ lower is better, ↑ higher is better.{chance}", highlight=False)
    for note in result.get("notes", []):
        console.print(note, highlight=False, markup=False)
