"""Ctrl-C in commands that do not handle it themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pretextlm.cli.shared.console import stderr


@contextmanager
def interruptible(how_to_go_on: str) -> Iterator[None]:
    """At Ctrl-C, says how to go on and ends the command with exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        from rich.text import Text

        stderr().print(Text(f"stopped. {how_to_go_on}"))
        raise typer.Exit(130) from None
