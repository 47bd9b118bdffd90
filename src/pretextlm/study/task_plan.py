"""The plan of a study of one task: the same records, learned by models with different starting points or trained parts.

[recipe]                                  shared by all runs: tables of a task's recipe
start = "runs/encoder"

[[entries]]
label = "pretrained"

[[entries]]
label = "student"
layers = [0, 2, 4]                        initialized from these layers of the run that `start` names
teacher = "pretrained"                    distilled from that entry's run of the same seed

[[entries]]
label = "scratch"
scratch = true                            the same Transformer with random weights
training = { learning_rate = 5e-4 }       any table of the recipe may differ

[grid]                                    every entry is run at every combination of these, once per seed
"training.learning_rate" = [2e-5, 3e-5, 5e-5]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from pretextlm.config import Config, apply_overrides, read_toml
from pretextlm.errors import UserError, did_you_mean
from pretextlm.files import AnyPath
from pretextlm.grid import Point, labels, point_label, points, set_at
from pretextlm.shipped_recipes import recipe_file
from pretextlm.study.plan import LABEL, RUNS, PlannedRun, Seeds, StudyPlan

if TYPE_CHECKING:
    from pretextlm.training.recipe import Recipe

STUDENTS = "students"
_TABLES = ("data", "task", "model", "training", "tuning")


class Entry(Config):
    """One model of the comparison.

    Attributes:
        label: its name in directories and in the report.
        scratch: random weights; shape and tokenizer are those of the run that `start` names.
        layers: layers of that run that initialize the model; empty: all.
        teacher: label of an earlier entry that it is distilled from.
        data, task, model, training, tuning: differences from the recipe's tables.
    """

    label: str
    scratch: bool = False
    layers: tuple[int, ...] = ()
    teacher: str = ""
    data: dict[str, Any] = Field(default_factory=dict)
    task: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    tuning: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_one_kind(self) -> Entry:
        if not LABEL.fullmatch(self.label):
            raise ValueError("a label is up to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit")
        if self.scratch and self.layers:
            raise ValueError("a model from scratch has no layers of another: leave out layers, or scratch")
        return self


class TaskStudy(Config):
    """Every entry × every seed of one task's recipe.

    Attributes:
        name: of the study, the report's title.
        seeds: each entry is trained once per seed.
        recipe: tables of a task's recipe, with `start`.
        entries: the models that are compared.
        grid: dotted settings of the recipe with their values; every entry is run at every point.
    """

    name: str = Field("study", min_length=1, max_length=200)
    seeds: Seeds = (1, 2, 3)
    recipe: dict[str, Any]
    entries: tuple[Entry, ...] = Field(min_length=1)
    grid: dict[str, tuple[Any, ...]] = Field(default_factory=dict)

    @field_validator("grid", mode="before")
    @classmethod
    def _of_settings(cls, grid: Any) -> Any:
        return _checked_grid(_flat(grid)) if isinstance(grid, Mapping) else grid

    @model_validator(mode="after")
    def _in_order(self) -> TaskStudy:
        labels = [entry.label for entry in self.entries]
        if len({label.casefold() for label in labels}) < len(labels):
            raise ValueError("two entries have the same label")
        for place, entry in enumerate(self.entries):
            if entry.teacher and entry.teacher not in labels[:place]:
                raise ValueError(f"{entry.label!r} is taught by {entry.teacher!r}, which is no entry before it")
        return self

    @cached_property
    def compared(self) -> tuple[Entry, ...]:
        """Returns the entries, each at every point of the grid."""
        entries = [entry.label for entry in self.entries]
        called = dict(zip(entries, labels(entries, self.grid), strict=True))
        return tuple(
            _at(entry, point, called[entry.label][place], called[entry.teacher][place] if entry.teacher else "")
            for entry in self.entries
            for place, point in enumerate(points(self.grid))
        )

    def check(self) -> None:
        """Check every entry's recipe and the records.

        Raises:
            UserError: one of them is invalid.
        """
        from pretextlm.training.corpus import open_corpus

        seen = []
        for entry in self.compared:
            recipe = self._load(entry, self.seeds[0], self._base(entry))
            if recipe.task is None:
                raise UserError("The recipe of a study with entries has no table [recipe.task].", "Name its task.")
            read = (recipe.data, recipe.training_objective.model_copy(update={"teacher": ""}))
            if read not in seen:
                open_corpus(recipe)
                seen.append(read)

    def runs(self) -> list[PlannedRun]:
        """Returns the runs seed by seed, teachers before their students."""
        return [
            PlannedRun(
                entry.label,
                seed,
                {},
                f"{entry.label}-seed{seed}",
                after=(f"{entry.teacher}-seed{seed}",) if entry.teacher else (),
            )
            for seed in self.seeds
            for entry in self.compared
        ]

    def recipe_of(self, run: PlannedRun, directory: Path) -> Recipe:
        """Returns the complete recipe of a run in a study directory; creates the pruned model it starts from if
        missing.
        """
        entry = next(entry for entry in self.compared if entry.label == run.label)
        values = self._base(entry)
        if entry.layers:
            values["start"] = str(self._student(entry, directory))
        if entry.teacher:
            teacher = directory / RUNS / f"{entry.teacher}-seed{run.seed}"
            values["task"] = {**values["task"], "teacher": str(teacher)}
        return self._load(entry, run.seed, values)

    def _base(self, entry: Entry) -> dict[str, Any]:
        """Returns the recipe's tables with the entry's differences."""
        from pretextlm.training.run_directory import Run

        differs = {table: getattr(entry, table) for table in _TABLES}
        values = dict(self.recipe) | {
            table: _joined(self.recipe.get(table, {}), changes) for table, changes in differs.items() if changes
        }
        start = values.get("start")
        if not isinstance(start, str) or not start:
            if values.get("data", {}).get("tokenizer") and not entry.scratch and not entry.layers:
                return values
            raise UserError("The recipe of a study with entries names no run to start from.", "Give recipe.start=RUN")
        Run.open(Path(start))
        if entry.scratch:
            model = Run.open(Path(start)).recipe.dump()["model"]
            values = {key: value for key, value in values.items() if key != "start"}
            values |= {"model": {**model, **entry.model}, "data": {**values.get("data", {}), "tokenizer": start}}
        return values

    def _load(self, entry: Entry, seed: int, values: dict[str, Any]) -> Recipe:
        from pretextlm.training.initial_weights import with_start
        from pretextlm.training.recipe import Recipe

        return Recipe.load(
            with_start({**values, "name": entry.label, "seed": seed}), where=f"the recipe of {entry.label}"
        )

    def _student(self, entry: Entry, directory: Path) -> Path:
        """Returns a run with the entry's layers of the run that `start` names."""
        from pretextlm.compression.prune import Pruning, prune_run

        place = directory / STUDENTS / "layers-{}".format("-".join(map(str, entry.layers)))
        if not (place / "config.toml").exists():
            prune_run(Path(self.recipe["start"]), place, Pruning(layers=entry.layers))
        return place

    def corpus(self) -> dict[str, Any]:
        """Returns the description of the records for corpus.json; `hash` is of the files and the number of records
        used.
        """
        import hashlib

        from pretextlm.training.corpus import SPLITS, read_split

        recipe = self._load(self.entries[0], self.seeds[0], self._base(self.entries[0]))
        whole = recipe.model_copy(
            update={"data": recipe.data.model_copy(update={"train_records": 0, "validation_records": 0})}
        )
        used = {split: read_split(recipe, split) for split in SPLITS}
        every = {split: len(read_split(whole, split)) for split in SPLITS}
        taken = [(records.sha256, len(records)) for records in used.values()]
        return {
            "task": recipe.training_objective.name,
            "hash": "sha256:" + hashlib.sha256(repr(taken).encode()).hexdigest(),
            "files": {split: records.source for split, records in used.items()},
            "records": {split: len(records) for split, records in used.items()},
            "of": every,
        }

    def plain(self) -> dict[str, Any]:
        """Returns plain values for study.toml; they load as an equal plan."""
        values = self.model_dump(mode="json", exclude_none=True)
        values["entries"] = [
            {k: v for k, v in entry.items() if v not in ({}, [], "", False)} for entry in values["entries"]
        ]
        return {key: value for key, value in values.items() if key != "grid" or value}


def _joined(table: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into a table of the recipe; a budget among them replaces the recipe's."""
    budget = any(key.startswith("budget_") for key in changes)
    return {**{k: v for k, v in table.items() if not (budget and k.startswith("budget_"))}, **changes}


def _at(entry: Entry, point: Point, label: str, teacher: str) -> Entry:
    """Returns an entry at a point of the grid."""
    tables = {table: getattr(entry, table) for table in _TABLES}
    for setting, value in point.items():
        tables = set_at(tables, setting, value)
    return entry.model_copy(update={**tables, "label": label, "teacher": teacher})


def _flat(grid: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the grid with dotted settings, also where they were written as tables."""
    found: dict[str, Any] = {}
    for key, value in grid.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _checked_grid(grid: dict[str, Any]) -> dict[str, Any]:
    for setting, values in grid.items():
        table, _, name = setting.partition(".")
        if table not in _TABLES or not name:
            raise ValueError(f"{setting!r} is no setting of a recipe's tables, such as training.learning_rate")
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"{setting!r} needs a list of values, as [2e-5, 5e-5]")
    for place in points(grid), [point_label(point) for point in points(grid)]:
        if any(one in place[:number] for number, one in enumerate(place)):
            raise ValueError("two points of the grid are the same, or have the same name")
    return grid


AnyPlan = StudyPlan | TaskStudy


def load_plan(source: AnyPath | Mapping[str, Any], overrides: Sequence[str] = ()) -> AnyPlan:
    """Load a study of objectives or, with [[entries]], of a task.

    Args:
        source: path of a TOML file, name of a study of the package, or its tables as plain values.
        overrides: such as "budget.seconds=60".

    Raises:
        UserError: the plan is invalid.
    """
    if isinstance(source, Mapping):
        path, values = "the study", dict(source)
    else:
        path, values = os.fspath(source), read_toml(recipe_file(source))
    values = apply_overrides(values, overrides)
    if "entries" not in values:
        plan = StudyPlan.parse(values, where=path)
        plan.check()
        return plan
    recipe = values.get("recipe")
    if not isinstance(recipe, dict) or "task" not in recipe:
        known = recipe if isinstance(recipe, dict) else values
        raise UserError(f"{path} has entries and no table [recipe.task].", did_you_mean("task", known))
    return TaskStudy.parse(values, where=path)
