"""A grid over settings × seeds for one task: `pretextlm finetune RECIPE --grid`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from pretextlm.errors import UserError
from pretextlm.grid import Grid
from pretextlm.study.task_plan import TaskStudy

RATES: Grid = {"training.learning_rate": [2e-5, 3e-5, 5e-5]}
"""What the literature tries when it fine-tunes an encoder (Devlin et al. 2019, appendix A.3)."""
SEEDS = (1, 2, 3)


def varied(texts: Sequence[str]) -> dict[str, list[Any]]:
    """`training.learning_rate=2e-5,5e-5` of the command line as settings with their values.

    Raises UserError for what is written otherwise.
    """
    found: dict[str, list[Any]] = {}
    for text in texts:
        setting, equals, values = text.partition("=")
        if not equals or not setting.strip() or not values.strip():
            raise UserError(
                f"Cannot read --vary {text!r}.", "Write it as --vary training.learning_rate=2e-5,5e-5, once a setting."
            )
        found[setting.strip()] = _values(values)
    return found


def seeds_of(text: str) -> list[int]:
    """`1,2,3` as numbers. Raises UserError for anything else."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Cannot read --seeds {text!r}.", "Write whole numbers, as --seeds 1,2,3.") from None


def grid_plan(recipe: dict[str, Any], grid: Grid, seeds: Sequence[int], where: str) -> TaskStudy:
    """Every point of the grid × every seed by one recipe of a task.

    Raises UserError where the recipe is of no task, or the grid no grid.
    """
    if "task" not in recipe:
        raise UserError(
            f"{where} has no table [task].", "A grid is of a task; objectives are compared by: compare STUDY"
        )
    name = str(recipe.get("name", "run"))
    label = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:40] or "run"
    shared = {key: value for key, value in recipe.items() if key not in ("name", "seed")}
    plan = {"name": f"{name} grid", "seeds": list(seeds), "recipe": shared, "entries": [{"label": label}], "grid": grid}
    return TaskStudy.parse(plan, where=where)


def _values(text: str) -> list[Any]:
    try:
        found = tomllib.loads(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in text.split(",")]
    return found if isinstance(found, list) else [found]
