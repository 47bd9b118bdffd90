"""Run a plan: train and evaluate every objective × seed, and go on where the last time ended."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.study.directory import COMMAND, claim, machine
from pretextlm.study.jobs import Turn, side_by_side
from pretextlm.study.plan import RUNS, PlannedRun
from pretextlm.study.progress import Silent, StudyProgress
from pretextlm.study.run_executor import Evaluate, Maker, Pretrain, finished
from pretextlm.study.study_results import OfRun, Outcome, Watcher
from pretextlm.study.task_plan import AnyPlan, TaskStudy


def compare(
    plan: AnyPlan,
    directory: Path,
    *,
    jobs: int = 1,
    command: Sequence[str] = (),
    progress: StudyProgress | None = None,
    pretrain: Pretrain | None = None,
    evaluate: Evaluate | None = None,
) -> Outcome:
    """Run the plan into a study directory; called again, it does only what is missing.

    A run that fails is named in the outcome and in command.json, and the others go on.

    Args:
        plan: what to compare.
        directory: a new one, or one that holds this very plan.
        jobs: runs at a time, each in a process of its own with its share of the threads, or a GPU.
        command: argv to record.
        progress: told of every run and step.
        pretrain, evaluate: the trainer and the evaluation; by default the package's own. With jobs, importable ones.

    Raises:
        UserError: before anything is trained, when plan, store or directory do not do.
        Stopped: a signal came; everything so far is saved, and the same call goes on from there.
    """
    from pretextlm.training.run_directory import locked

    if jobs < 1:
        raise UserError(f"{jobs} runs at a time make none.", "Give a whole number from 1 on, as --jobs 2.")
    progress = progress or Silent()
    recipes = check(plan)
    with locked(directory):
        claim(directory, plan)
        noted = _begin(directory, command)
        outcome = Outcome(directory)
        turns = [
            Turn(
                run.directory,
                partial(_recipe, plan, run, recipe, directory),
                directory / RUNS / run.directory,
                run.after,
            )
            for run, recipe in recipes
        ]
        watcher = Watcher(outcome, len(turns), progress)
        left = []
        for turn in turns:
            watcher.found(turn.name) if finished(turn.directory) else left.append(turn)
        maker = Maker(pretrain, evaluate)
        if jobs == 1:
            for turn in left:
                watcher.begin(turn.name)
                failure = maker.make(turn.recipe, turn.directory, command, OfRun(watcher, turn.name))
                watcher.end(turn.name, failure)
        else:
            side_by_side(left, jobs, maker, command, watcher)
        _finish(directory, noted, outcome)
    return outcome


def _recipe(plan: AnyPlan, run: PlannedRun, recipe: Any, directory: Path) -> Any:
    """Of a run; of a task, it may need what runs before it made."""
    return plan.recipe_of(run, directory) if isinstance(plan, TaskStudy) else recipe


def check(plan: AnyPlan) -> list[tuple[PlannedRun, Any]]:
    """Every run with its recipe, held against what it reads. Raises UserError for the first that cannot be trained.

    Recipes of a task are made when their turn comes, and stand as None.
    """
    from pretextlm.data.store import Store
    from pretextlm.training.recipe import Recipe

    plan.check()
    if isinstance(plan, TaskStudy):
        return [(run, None) for run in plan.runs()]
    store = Store.open(Path(plan.store))
    recipes = [(run, Recipe.load(run.recipe, f"the recipe of {run.label}")) for run in plan.runs()]
    for _, recipe in recipes:
        objective = recipe.with_vocabulary(store.vocabulary.size).objective
        for split in (store.train, store.validation):
            objective.reader(split, recipe.vocabulary(store), recipe.data.length)
    return recipes


def _begin(directory: Path, command: Sequence[str]) -> dict[str, Any]:
    """command.json as a study begins or goes on: the first start stays, since that is when it began."""
    try:
        old = json.loads((directory / COMMAND).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        old = {}
    started = old.get("started") if isinstance(old, Mapping) else None
    noted = {"command": list(command), "started": started or _now(), "finished": None, "machine": machine()}
    write_json(directory / COMMAND, noted)
    return noted


def _finish(directory: Path, noted: Mapping[str, Any], outcome: Outcome) -> None:
    write_json(directory / COMMAND, {**noted, "finished": _now(), "failed": outcome.failed})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
