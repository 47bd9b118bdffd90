"""Grids of settings: every combination of some values, and a name for each.

    {"training.learning_rate": [2e-5, 5e-5], "training.batch_rows": [16, 32]}

has four points, the first of which is {"training.learning_rate": 2e-5, "training.batch_rows": 16}.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

Grid = Mapping[str, Sequence[Any]]
Point = dict[str, Any]


def points(grid: Grid) -> list[Point]:
    """Returns all points of a grid, the last setting changing fastest; an empty grid has one point without settings."""
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def point_label(point: Point) -> str:
    """Returns a point's settings as the name of a directory: "learning_rate_2e-05_batch_rows_16"."""
    parts = [f"{setting.rpartition('.')[2]}_{_plain(value)}" for setting, value in point.items()]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts))


def labels(entries: Sequence[str], grid: Grid) -> list[list[str]]:
    """Returns the names of each entry's points. With a single entry, its own name is left out of them."""
    if not grid:
        return [[entry] for entry in entries]
    named = [point_label(point) for point in points(grid)]
    return [named if len(entries) == 1 else [f"{entry}_{name}" for name in named] for entry in entries]


def set_at(values: Mapping[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """Returns a copy of nested tables with one dotted setting changed."""
    first, _, rest = setting.partition(".")
    inner = values.get(first)
    return {**values, first: set_at(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
