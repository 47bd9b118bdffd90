"""What a benchmark prints and writes: a table for people, JSON with the machine for everything else."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from pretextlm.training.runtime import device_name


def machine() -> dict[str, Any]:
    """What the numbers depend on, without a name or a path."""
    import transformers

    return {
        "cpu": device_name(torch.device("cpu")),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": 1,
    }


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; all columns but the first are right-aligned."""
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


def write(path: Path | None, benchmark: str, results: Mapping[str, Any]) -> None:
    """Write the results as JSON where a path was given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"benchmark": benchmark, "machine": machine(), **results}, indent=1) + "\n")
