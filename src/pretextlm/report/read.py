"""A typed view of run and study directories. A running or broken run is reported as such and never an exception."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pretextlm.errors import UserError
from pretextlm.grid import labels
from pretextlm.metric import Better
from pretextlm.plain_files import read_text

State = Literal["finished", "not evaluated", "unfinished", "failed"]
_SEEDED = re.compile(r"(?P<label>.+)-seed(?P<seed>\d+)")


@dataclass(frozen=True)
class Metric:
    """One entry of evaluation.json; see docs/architecture.md."""

    name: str
    value: float
    n: int | None = None
    stderr: float | None = None
    unit: str = ""
    better: Better | None = None


@dataclass(frozen=True)
class Run:
    """Content of one run directory.

    Attributes:
        path: the directory.
        label: the condition that the run belongs to; runs that differ only in the seed share it.
        state: progress of the run; anything but "finished" comes with a sentence in `problem`.
        config, environment, cost: the files as plain values, empty if missing.
        validation: lines of metrics.jsonl of kind "validation", in order.
        forgetting: lines of kind "forgetting", on the stores monitored for forgetting.
        metrics, settings: of evaluation.json.
        samples: lines of samples.jsonl.
        predictions: lines of predictions.jsonl, for a run of a task.
    """

    path: Path
    label: str
    seed: int | None
    state: State
    problem: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    cost: Mapping[str, Any] = field(default_factory=dict)
    validation: tuple[Mapping[str, Any], ...] = ()
    forgetting: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Mapping[str, Any], ...] = ()
    predictions: tuple[Mapping[str, Any], ...] = ()

    @property
    def options(self) -> Mapping[str, Any]:
        """Returns the table of its objective or task."""
        return table(self.config, "task") or table(self.config, "objective")

    @property
    def objective(self) -> str:
        """Returns the name of the objective or task, "" if the run has no configuration."""
        return str(self.options.get("name", ""))


@dataclass(frozen=True)
class Condition:
    """All runs that differ only in the seed."""

    label: str
    runs: tuple[Run, ...]

    @property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.state == "finished")

    @property
    def example(self) -> Run:
        """Returns the run shown as the example: the first finished one, else the first."""
        return (self.finished or self.runs)[0]

    @property
    def objective(self) -> str:
        return next((run.objective for run in self.runs if run.objective), "")


@dataclass(frozen=True)
class Study:
    """One or more runs and their common files: plan, command and corpus are empty without a study directory.

    A study of one task has `entries` in its plan: all its runs are scored on the same records. Runs without a study
    may also be of one task.
    """

    title: str
    runs: tuple[Run, ...]
    plan: Mapping[str, Any] = field(default_factory=dict)
    command: Mapping[str, Any] = field(default_factory=dict)
    corpus: Mapping[str, Any] = field(default_factory=dict)

    @property
    def of_a_task(self) -> bool:
        """Returns whether all runs learn one task and are scored on the same records."""
        if "entries" in self.plan:
            return True
        scored = {(run.objective, str(run.settings.get("sha256"))) for run in self.runs if run.settings}
        return all("task" in run.config for run in self.runs) and len(scored) < 2

    @property
    def of_a_grid(self) -> bool:
        """Returns whether the conditions are points of a grid, of which the best is sought."""
        return bool(table(self.plan, "grid"))

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """Returns the runs grouped by label, in the order of the plan."""
        labels = list(dict.fromkeys(run.label for run in self.runs))
        return tuple(Condition(label, tuple(r for r in self.runs if r.label == label)) for label in labels)


def read(paths: Iterable[Path]) -> Study:
    """Read one study directory, or one or several run directories.

    Returns:
        Their content.

    Raises:
        UserError: a path is neither.
    """
    paths = list(paths)
    if len(paths) == 1 and (paths[0] / "study.toml").exists():
        return _read_study(paths[0])
    for path in paths:
        if not (path / "config.toml").is_file():
            raise UserError(
                f"{path} is neither a run nor a study: it has no config.toml and no study.toml.",
                "Give a directory that `pretextlm pretrain` or `pretextlm compare` wrote, or several runs.",
            )
    runs = tuple(read_run(path) for path in paths)
    title = str(runs[0].config.get("name") or runs[0].path.name) if len(runs) == 1 else f"{len(runs)} runs"
    return Study(title, runs)


def _read_study(path: Path) -> Study:
    plan = _toml(path / "study.toml")
    planned = [_planned_name(label, seed) for seed in plan.get("seeds", ()) for label in _labels(plan)]
    found = sorted(p.name for p in (path / "runs").glob("*") if p.is_dir())
    names = [*planned, *(name for name in found if name not in planned)]
    command, corpus = _json(path / "command.json"), _json(path / "corpus.json")
    failed = table(command, "failed")
    runs = tuple(read_run(path / "runs" / name, str(failed.get(name, ""))) for name in names)
    return Study(str(plan.get("name") or path.resolve().name), runs, plan, command, corpus)


def _labels(plan: Mapping[str, Any]) -> list[str]:
    entries = [
        str(entry.get("label") or entry.get("name")) if isinstance(entry, Mapping) else str(entry)
        for entry in plan.get("objectives", plan.get("entries", ()))
    ]
    return [label for called in labels(entries, table(plan, "grid")) for label in called]


def _planned_name(label: str, seed: int) -> str:
    return f"{label}-seed{seed}"


def read_run(path: Path, failure: str = "") -> Run:
    """Read everything that exists of a run; `failure` is the recorded reason why it ended early."""
    match = _SEEDED.fullmatch(path.resolve().name)
    config, evaluation, cost = _toml(path / "config.toml"), _json(path / "evaluation.json"), _json(path / "cost.json")
    seed = config.get("seed", int(match["seed"]) if match else None)
    lines = _lines(path / "metrics.jsonl")
    metrics = dict(_metrics(table(evaluation, "metrics")))
    problem = f"failed: {failure}" if failure else _progress(bool(config), bool(cost), lines)
    state: State = "finished" if metrics else "failed" if failure else "not evaluated" if cost else "unfinished"
    return Run(
        path=path,
        label=match["label"] if match else path.resolve().name,
        seed=seed if isinstance(seed, int) else None,
        state=state,
        problem="" if metrics else problem,
        config=config,
        environment=_json(path / "environment.json"),
        cost=cost,
        validation=tuple(line for line in lines if line.get("kind") == "validation"),
        forgetting=tuple(line for line in lines if line.get("kind") == "forgetting"),
        metrics=metrics,
        settings=table(evaluation, "settings"),
        samples=tuple(_lines(path / "samples.jsonl")),
        predictions=tuple(_lines(path / "predictions.jsonl")) if "task" in config else (),
    )


def _progress(begun: bool, trained: bool, lines: list[dict[str, Any]]) -> str:
    if trained:
        return "is trained but not evaluated"
    if lines:
        return f"is unfinished: its last line is of step {number(lines[-1].get('step')) or 0:,.0f}"
    return "has only begun" if begun else "has not begun"


def _metrics(values: Mapping[str, Any]) -> Iterator[tuple[str, Metric]]:
    for name, entry in values.items():
        value = number(entry.get("value")) if isinstance(entry, Mapping) else None
        if value is not None:
            n, stderr = number(entry.get("n")), number(entry.get("stderr"))
            better: Any = number(entry.get("better"))
            better = entry["better"] if entry.get("better") in ("lower", "higher") else better
            yield name, Metric(name, value, None if n is None else int(n), stderr, str(entry.get("unit") or ""), better)


def number(value: Any) -> float | None:
    """Returns a finite number, else None."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
    return float(value) if usable else None


def table(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Returns the table under a key, empty if there is none."""
    inner = values.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _text(path: Path) -> str:
    try:
        return read_text(path, errors="replace")
    except OSError:
        return ""


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(path))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def _json(path: Path) -> dict[str, Any]:
    return _object(_text(path))


def _lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a JSON-lines file, without an incomplete last line of a running run."""
    return [value for line in _text(path).split("\n") if (value := _object(line))]


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
