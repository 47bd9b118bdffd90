"""Run a plan: train and evaluate every objective × seed, one after another, and go on where the last time ended."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pretextlm.errors import UserError
from pretextlm.files import write_json
from pretextlm.study.directory import COMMAND, claim, machine
from pretextlm.study.plan import RUNS, PlannedRun
from pretextlm.study.progress import Silent, StudyProgress
from pretextlm.study.task_plan import AnyPlan, TaskStudy

Pretrain = Callable[..., Any]
Evaluate = Callable[[Path], Any]
log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What became of the runs, by directory name.

    Attributes:
        finished: trained and evaluated this time.
        skipped: found finished.
        failed: name → the reason, in one line.
    """

    directory: Path
    finished: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def compare(
    plan: AnyPlan,
    directory: Path,
    *,
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
        command: argv to record.
        progress: told of every run and step.
        pretrain, evaluate: the trainer and the evaluation; by default the package's own.

    Raises:
        UserError: before anything is trained, when plan, store or directory do not do.
        Stopped: a signal came; everything so far is saved, and the same call goes on from there.
    """
    from pretextlm.training.run import locked

    progress = progress or Silent()
    recipes = check(plan)
    with locked(directory):
        claim(directory, plan)
        noted = _begin(directory, command)
        outcome = Outcome(directory)
        for number, (run, recipe) in enumerate(recipes):
            progress.begin(run.directory, number, len(recipes))
            where = directory / RUNS / run.directory
            if (where / "evaluation.json").exists():
                outcome.skipped.append(run.directory)
                progress.end(run.directory, "found finished")
                continue
            make = partial(_recipe, plan, run, recipe, directory)
            _one(run, make, where, outcome, command, progress, pretrain or _pretrain, evaluate or _evaluate)
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


def _one(
    run: PlannedRun,
    make: Callable[[], Any],
    where: Path,
    outcome: Outcome,
    command: Sequence[str],
    progress: StudyProgress,
    pretrain: Pretrain,
    evaluate: Evaluate,
) -> None:
    from pretextlm.training.signals import Stopped

    try:
        if not (where / "cost.json").exists():
            pretrain(make(), where, resume=True, command=command, progress=progress)
        evaluate(where)
    except Stopped:
        raise
    except UserError as error:
        outcome.failed[run.directory] = error.message
    except Exception as error:  # one run's fault must not take the others' hours with it
        log.exception("%s failed", run.directory)
        outcome.failed[run.directory] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
    else:
        outcome.finished.append(run.directory)
    failure = outcome.failed.get(run.directory)
    progress.end(run.directory, f"failed: {failure}" if failure else "done")


def _pretrain(*args: Any, **options: Any) -> Any:
    from pretextlm.training.trainer import pretrain

    return pretrain(*args, **options)


def _evaluate(directory: Path) -> Any:
    from pretextlm.evaluation.evaluate import evaluate_run

    return evaluate_run(directory)


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
