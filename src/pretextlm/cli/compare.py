"""`pretextlm compare STUDY.toml`: train and evaluate every objective × seed of a study, and write the report."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pretextlm.cli.shared.console import print_json, stderr
from pretextlm.cli.shared.options import Jobs
from pretextlm.names import directory_name

if TYPE_CHECKING:
    from pretextlm.study.task_plan import AnyPlan


def compare(
    study: Annotated[
        Path | None, typer.Argument(help="The plan as TOML, or the name of a shipped one; without one: --data.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Changes to it, as TOML: budget.seconds=60 seeds=[1,2] store=DIR")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Study directory. By default studies/NAME of the plan.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Instead of a plan, a store: causal, masked and span corruption, sized for --budget."),
    ] = None,
    budget: Annotated[str, typer.Option(help="Of each run: 10min, 90s, 1e13flops, 2e6tokens.")] = "",
    jobs: Jobs = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Compare objectives on the same text, budget and model shape, over several seeds.

    pretextlm compare --data STORE --budget 10min compares the three classic objectives, each at the size that suits the
    budget (pretextlm plan).
    Or models on one task, pre-trained, distilled and from scratch: pretextlm compare mnli_three_ways.

    Ctrl-C (or SIGTERM) saves and exits; the same command resumes and runs only what is missing. More seeds or
    objectives, given later to the same directory, are added: seeds=[1,2,3] after seeds=[1,2] trains the third.
    """
    plan = _plan(study, overrides or [], data, budget)
    run_study(plan, out or Path("studies") / directory_name(plan.name, "study").lower(), as_json, jobs)


def _plan(study: Path | None, overrides: list[str], data: Path | None, budget: str) -> AnyPlan:
    from pretextlm.errors import UserError
    from pretextlm.study.quickstart import classic_study
    from pretextlm.study.task_plan import load_plan
    from pretextlm.training.budget_text import parse_budget

    if (study is None) == (data is None):
        raise UserError("Give a plan or a store.", "For example: pretextlm compare --data STORE --budget 10min")
    kind, amount = parse_budget(budget or "10min")
    if study is not None:
        return load_plan(study, [*overrides, f"budget={{{kind}={amount}}}"] if budget else overrides)
    assert data is not None, "one of the two is given"
    return classic_study(data, {kind: amount}, seeds=3)


def run_study(plan: AnyPlan, directory: Path, as_json: bool, jobs: int = 1) -> None:
    """Run a study under one progress bar, write its report and print the table; exits with the command's exit code."""
    from pretextlm.cli.report import print_summary
    from pretextlm.cli.shared.study_bar import StudyBar
    from pretextlm.study.compare import compare as run
    from pretextlm.training.runtime import tune_process
    from pretextlm.training.signals import Stopped

    tune_process()
    logging.basicConfig()  # an unforeseen error of a run is shown with its traceback
    try:
        with StudyBar() as progress:
            results = run(plan, directory, jobs=jobs, command=["pretextlm", *sys.argv[1:]], progress=progress)
    except Stopped as stopped:
        stderr().print(f"{stopped}; saved. Give the same command to go on.")
        raise typer.Exit(stopped.exit_code) from None
    assert results.report is not None
    if as_json:
        print_json(
            {"study": str(directory), "report": str(results.report), "failed": results.failed, **results.summary}
        )
    else:
        print_summary(results.summary, results.report)
    if results.failed:
        stderr().print(f"failed: {', '.join(results.failed)}. Give the same command to try again.")
        raise typer.Exit(1)
