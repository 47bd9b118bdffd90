"""A command's function called in this process, as the command line would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.testing import CliRunner


def printed_by(command: Callable[..., Any], *arguments: str, columns: int = 200) -> str:
    """What a command that succeeds prints; an error of the user's is raised."""
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout
