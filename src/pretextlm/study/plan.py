"""The plan of a study of objectives: the same text, budget, seeds and model shape for all, as one TOML file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pretextlm.config import Config, PathText, apply_overrides, read_toml
from pretextlm.errors import UserError
from pretextlm.files import AnyPath
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.registry import build
from pretextlm.shipped_recipes import recipe_file
from pretextlm.training.recipe_paths import found_beside

Table = Mapping[str, Any]
"""A table of the plan as plain values."""
BudgetKind = Literal["tokens", "flops", "seconds"]
RUNS = "runs"
"""Subdirectory of a study that holds its runs."""
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OWN_KEYS = ("name", "label", "architecture", "model", "training", "options")


def _differ(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or min(seeds) < 0 or len(set(seeds)) != len(seeds):
        raise ValueError("seeds must be different integers of at least 0")
    return seeds


Seeds = Annotated[tuple[int, ...], AfterValidator(_differ)]
"""Seeds of a study: everything that is compared is trained once per seed."""


def _whole(value: Any) -> Any:
    """2e6 is a whole number, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Budget(Config):
    """Training budget of each run: exactly one of the three.

    Attributes:
        tokens: input tokens read from text.
        flops: floating-point operations of training.
        seconds: seconds of training, without evaluation.
    """

    tokens: Annotated[int, BeforeValidator(_whole)] | None = Field(None, gt=0)
    flops: float | None = Field(None, gt=0)
    seconds: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of tokens, flops and seconds, not {' and '.join(given) or 'none'}")
        return self

    @property
    def kind(self) -> BudgetKind:
        """Returns the name of the budget that is given."""
        return "tokens" if self.tokens else "flops" if self.flops else "seconds"

    @property
    def amount(self) -> float:
        """Returns its amount."""
        return self.tokens or self.flops or self.seconds or 0.0


def _without_budget(training: dict[str, Any]) -> dict[str, Any]:
    stated = [key for key in training if key == "steps" or key.startswith("budget_")]
    if stated:
        raise ValueError(f"{stated[0]!r} is set by the study's own [budget], so that all runs spend the same")
    return training


class Condition(Config):
    """One condition of the comparison: an objective with its options, on an architecture.

    It is written as a name or a table, or in Python as an objective.

    Attributes:
        name: the objective as registered.
        label: its name in directories and in the report; by default the objective's name.
        architecture: one that the objective supports; by default its first.
        model: fields of the model that differ from the study's, for instance to equalise parameter counts.
        training: fields of the training that differ, for instance a suitable batch size; never the budget.
        options: options of the objective; in the table they are beside the name.
    """

    name: str
    label: str = ""
    architecture: Architecture | None = None
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value, "label": value}
        if isinstance(value, Objective):
            options = value.model_dump(mode="json", exclude_unset=True)
            return {"name": value.name, "label": value.name, "options": options}
        if not isinstance(value, dict) or not isinstance(value.get("options", {}), dict):
            return value
        own = {key: value[key] for key in _OWN_KEYS if key in value}
        beside = {key: value[key] for key in value if key not in _OWN_KEYS}
        own["options"] = {**own.get("options", {}), **beside}
        return {"label": own.get("name", ""), **own}

    @field_validator("label")
    @classmethod
    def _is_a_directory_name(cls, label: str) -> str:
        if not LABEL.fullmatch(label):
            raise ValueError("a label is up to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit")
        return label

    @field_validator("training")
    @classmethod
    def _same_budget(cls, training: dict[str, Any]) -> dict[str, Any]:
        return _without_budget(training)

    def objective(self) -> Objective:
        """Returns the objective.

        Raises:
            UserError: unknown name or option.
        """
        return build(self.name, self.options)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        after: directories of the runs that must end before it.
    """

    label: str
    seed: int
    recipe: dict[str, Any]
    directory: str
    after: tuple[str, ...] = ()


class StudyPlan(Config):
    """A controlled comparison: every objective × every seed on the same text, budget and model shape.

    Attributes:
        name: of the study, the report's title.
        store: directory of the prepared corpus.
        objectives: the conditions: objectives by name, as tables (see :class:`Condition`) or as instances.
        seeds: each objective is trained once per seed of weights, data order and noise.
        budget: of each run.
        length: tokens of an input row; None: the recipe's default.
        model: table passed on to the recipe of each run, or the name of a preset; "auto": each objective has the size
            that suits the budget (study/sized_plan.py).
        training, evaluation: tables passed on likewise.
    """

    name: str = Field("study", min_length=1, max_length=200)
    store: PathText = Field(min_length=1)
    objectives: tuple[Condition, ...] = Field(min_length=1)
    seeds: Seeds = (1, 2, 3)
    budget: Budget
    length: int | None = Field(None, gt=0)
    model: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)

    if TYPE_CHECKING:  # the types that are accepted, where they are wider than the fields'

        def __init__(
            self,
            *,
            name: str = "study",
            store: AnyPath,
            objectives: Sequence[Condition | Objective | Table | str],
            seeds: Sequence[int] = (1, 2, 3),
            budget: Budget | Table,
            length: int | None = None,
            model: Table | str = ...,
            training: Table = ...,
            evaluation: Table = ...,
        ) -> None: ...

    @field_validator("model", mode="before")
    @classmethod
    def _name_of_preset(cls, model: Any) -> Any:
        return {"preset": model} if isinstance(model, str) else model

    @field_validator("objectives")
    @classmethod
    def _labels_differ(cls, conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
        folded = [condition.label.casefold() for condition in conditions]
        twice = sorted({label for label in folded if folded.count(label) > 1})
        if twice:
            raise ValueError(f"two objectives are labelled {twice[0]!r}; tell them apart with label = …")
        return conditions

    @field_validator("training")
    @classmethod
    def _one_budget(cls, training: dict[str, Any]) -> dict[str, Any]:
        return _without_budget(training)

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> StudyPlan:
        """Load a TOML file with `section.key=value` overrides.

        Raises:
            UserError: the plan is invalid.
        """
        file = recipe_file(path)
        values = apply_overrides(found_beside(read_toml(file), file), overrides or [])
        plan = cls.parse(values, where=str(path))
        plan.check()
        return plan

    def check(self) -> None:
        """Check that every objective exists, accepts its options and supports its architecture.

        Raises:
            UserError: otherwise.
        """
        for condition in self.objectives:
            objective = condition.objective()
            wanted = condition.architecture or _architecture(condition.model) or _architecture(self.model)
            if wanted and wanted not in objective.supported_architectures():
                raise UserError(
                    f"The objective {condition.label!r} does not support the architecture {wanted!r}.",
                    f"It supports: {', '.join(objective.supported_architectures())}.",
                )

    def runs(self) -> list[PlannedRun]:
        """Returns the runs seed by seed, so that an interrupted study has complete rounds first."""
        return list(self._runs())

    def _runs(self) -> Iterator[PlannedRun]:
        for seed in self.seeds:
            for condition in self.objectives:
                yield PlannedRun(condition.label, seed, self._recipe(condition, seed), f"{condition.label}-seed{seed}")

    def _recipe(self, condition: Condition, seed: int) -> dict[str, Any]:
        model = {**self.model, **condition.model}
        model["architecture"] = condition.architecture or model.get(
            "architecture", condition.objective().supported_architectures()[0]
        )
        recipe: dict[str, Any] = {
            "name": condition.label,
            "seed": seed,
            "data": {"store": self.store} | ({"length": self.length} if self.length else {}),
            "objective": {"name": condition.name, **condition.options},
            "model": model,
            "training": {**self.training, **condition.training, f"budget_{self.budget.kind}": self.budget.amount},
        }
        return recipe | ({"evaluation": dict(self.evaluation)} if self.evaluation else {})

    def plain(self) -> dict[str, Any]:
        """Returns plain values for study.toml with every default; they load as an equal plan."""
        values = self.model_dump(mode="json", exclude_none=True)
        return {key: value for key, value in values.items() if value != {}}


def _architecture(model: dict[str, Any]) -> str | None:
    value = model.get("architecture")
    return value if isinstance(value, str) else None
