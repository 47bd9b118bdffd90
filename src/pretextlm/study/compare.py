"""Run a study: train and evaluate every objective × seed, and resume where an earlier call was interrupted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.files import AnyPath, write_json
from pretextlm.plain_files import read_json
from pretextlm.report.page import write_report
from pretextlm.study.directory import COMMAND, claim, machine, with_earlier_runs
from pretextlm.study.jobs import QueuedRun, run_in_parallel
from pretextlm.study.plan import RUNS, PlannedRun, StudyPlan
from pretextlm.study.progress import Silent, StudyProgress
from pretextlm.study.run_executor import Evaluate, Pretrain, RunExecutor, finished
from pretextlm.study.sized_plan import sized_plan
from pretextlm.study.study_results import RunProgress, StudyRecorder, StudyResults
from pretextlm.study.task_plan import AnyPlan, TaskStudy, load_plan


def compare(
    study: AnyPlan | AnyPath | Mapping[str, Any],
    out: AnyPath,
    *,
    jobs: int = 1,
    command: Sequence[str] = (),
    progress: StudyProgress | None = None,
) -> StudyResults:
    """Train and evaluate every run of a study, and write its report. Called again, it runs only what is missing.

    A failed run is recorded in the results and in command.json; the other runs continue.

    Args:
        study: the comparison: a plan, its tables as plain values, or a TOML file.
        out: a new directory, or one that holds this plan or a smaller one: seeds, objectives, entries and points of a
            grid are added to it.
        jobs: number of runs at a time, each in its own process with its share of the threads, or one GPU.
        command: argv to record.
        progress: notified of every run and step.

    Returns:
        The state of every run, the path of the report, and all measures.

    Raises:
        UserError: before any training, if the plan, the store or the directory is unsuitable.
        Stopped: a signal arrived; everything so far is saved, and the same call resumes.
    """
    plan = study if isinstance(study, StudyPlan | TaskStudy) else load_plan(study)
    results = run_plan(plan, Path(out), jobs=jobs, command=command, progress=progress)
    results.report, results.summary = write_report([results.directory])
    return results


def run_plan(
    plan: AnyPlan,
    directory: Path,
    *,
    jobs: int = 1,
    command: Sequence[str] = (),
    progress: StudyProgress | None = None,
    pretrain: Pretrain | None = None,
    evaluate: Evaluate | None = None,
) -> StudyResults:
    """Run a study into a directory, without a report. Called again, it runs only what is missing.

    A failed run is recorded in the results and in command.json; the other runs continue.

    Args:
        plan: the study.
        directory: a new directory, or one that holds this plan or a smaller one.
        jobs: number of runs at a time, each in its own process with its share of the threads, or one GPU.
        command: argv to record.
        progress: notified of every run and step.
        pretrain, evaluate: the trainer and the evaluation; by default the package's own. With jobs, importable
            functions.

    Returns:
        The state of every run.

    Raises:
        UserError: before any training, if the plan, the store or the directory is unsuitable.
        Stopped: a signal arrived; everything so far is saved, and the same call resumes.
    """
    from pretextlm.training.run_directory import locked

    if jobs < 1:
        raise UserError(f"jobs must be at least 1, not {jobs}.", "Give an integer, for example --jobs 2.")
    progress = progress or Silent()
    plan = with_earlier_runs(directory, sized_plan(plan, directory))
    recipes = check(plan)
    with locked(directory):
        claim(directory, plan)
        noted = _begin(directory, command)
        outcome = StudyResults(directory)
        turns = [
            QueuedRun(
                run.directory,
                partial(_recipe, plan, run, recipe, directory),
                directory / RUNS / run.directory,
                run.after,
            )
            for run, recipe in recipes
        ]
        recorder = StudyRecorder(outcome, len(turns), progress)
        left = []
        for turn in turns:
            recorder.found(turn.name) if finished(turn.directory) else left.append(turn)
        executor = RunExecutor(pretrain, evaluate)
        if jobs == 1:
            for turn in left:
                recorder.begin(turn.name)
                failure = executor.execute(turn.recipe, turn.directory, command, RunProgress(recorder, turn.name))
                recorder.end(turn.name, failure)
        else:
            run_in_parallel(left, jobs, executor, command, recorder)
        _finish(directory, noted, outcome)
    return outcome


def _recipe(plan: AnyPlan, run: PlannedRun, recipe: Any, directory: Path) -> Any:
    """Returns the recipe of a run. A task's recipe may depend on the results of earlier runs."""
    return plan.recipe_of(run, directory) if isinstance(plan, TaskStudy) else recipe


def check(plan: AnyPlan) -> list[tuple[PlannedRun, Any]]:
    """Validate the recipe of every run against its data.

    Returns:
        Every run with its recipe. Recipes of a task are built when their turn comes and are None here.

    Raises:
        UserError: names the first run that cannot be trained.
    """
    from pretextlm.data.store import Store
    from pretextlm.training.recipe import Recipe

    plan.check()
    if isinstance(plan, TaskStudy):
        return [(run, None) for run in plan.runs()]
    store = Store.open(Path(plan.store))
    recipes = [(run, Recipe.load(run.recipe, where=f"the recipe of {run.label}")) for run in plan.runs()]
    for _, recipe in recipes:
        objective = recipe.with_vocabulary(store.vocabulary).training_objective
        for split in (store.train, store.validation):
            objective.reader(split, recipe.vocabulary(store), recipe.data.length)
    return recipes


def _begin(directory: Path, command: Sequence[str]) -> dict[str, Any]:
    """Returns command.json for a study that starts or resumes; the time of the first start is kept."""
    try:
        old = read_json(directory / COMMAND)
    except (OSError, ValueError):
        old = {}
    started = old.get("started") if isinstance(old, Mapping) else None
    noted = {"command": list(command), "started": started or _now(), "finished": None, "machine": machine()}
    write_json(directory / COMMAND, noted)
    return noted


def _finish(directory: Path, noted: Mapping[str, Any], outcome: StudyResults) -> None:
    write_json(directory / COMMAND, {**noted, "finished": _now(), "failed": outcome.failed})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
