"""A hyper-parameter grid × seeds for one task: `pretextlm finetune RECIPE --grid`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from pretextlm.config import parse_toml
from pretextlm.errors import UserError
from pretextlm.grid import Grid
from pretextlm.study.task_plan import TaskStudy

RATES: Grid = {"training.learning_rate": [2e-5, 3e-5, 5e-5]}
"""The default grid: learning rates for fine-tuning an encoder (Devlin et al. 2019, appendix A.3)."""
SEEDS = (1, 2, 3)


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Parse `training.learning_rate=2e-5,5e-5` of the command line.

    Returns:
        Setting → its values.

    Raises:
        UserError: the text has another form.
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


def parse_seeds(text: str) -> list[int]:
    """Parse `1,2,3`.

    Returns:
        The seeds.

    Raises:
        UserError: the text has another form.
    """
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"Cannot read --seeds {text!r}.", "Write integers, for example --seeds 1,2,3.") from None


def grid_plan(recipe: dict[str, Any], grid: Grid, seeds: Sequence[int], where: str) -> TaskStudy:
    """Build the study of every point of the grid × every seed.

    Raises:
        UserError: the recipe has no task, or the grid is invalid.
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
        found = parse_toml(f"values = [{text}]")["values"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"Cannot read the values {text[:80]!r}: {error}.", "Give plain values.") from None
    return found if isinstance(found, list) else [found]
