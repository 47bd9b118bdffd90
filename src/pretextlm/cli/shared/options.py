"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunDirectory = Annotated[Path | None, typer.Option(help="Run directory. By default runs/NAME of the recipe.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run from its newest sound checkpoint.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Measure a few steps and print memory, time and cost; nothing is trained or written."
    ),
]
Device = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
Jobs = Annotated[int, typer.Option(help="Runs at a time: each has its share of the threads, or a GPU.")]
