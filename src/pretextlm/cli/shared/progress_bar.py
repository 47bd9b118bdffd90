"""How far a long question to a model is."""

from __future__ import annotations

from typing import Any, Self

from pretextlm.cli.shared.console import stderr


class Bar:
    """A bar on stderr with the rate and the time left; nothing where nobody looks."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
        rate = TextColumn("{task.fields[rate]:>7,.1f}/s", markup=False)
        console = stderr()
        self._bar = Progress(*columns, rate, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """So many of `total` are done."""
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total, rate=0.0)
        task = next(task for task in self._bar.tasks if task.id == self._tasks[what])
        self._bar.update(self._tasks[what], completed=done, total=total, rate=task.speed or 0.0)
