"""Progress of a study on stderr: one bar for all runs, and a line for each run that ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from pretextlm.cli.shared.console import stderr


class StudyBar:
    """A rich progress bar over all runs. Use as a context manager."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        # A run's first seconds say little about its speed, a whole run says all: estimate over a long window.
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%", markup=False),
            TimeElapsedColumn(),
            TextColumn("left", markup=False),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=stderr(),
            speed_estimate_period=600,
        )
        self._task = self._bar.add_task("preparing", total=None)
        self._done, self._name = 0, ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, name: str, done: int, total: int) -> None:
        self._bar.start()  # not before: a plan that is refused leaves no empty bar behind
        self._done, self._name = done, f"run {done + 1} of {total} · {name}"
        self._bar.update(self._task, total=total, completed=done, description=self._name)

    def step(self, share: float, values: Mapping[str, float]) -> None:
        loss = f" · loss {values['loss']:.3f}" if "loss" in values else ""
        self._bar.update(self._task, completed=self._done + share, description=f"{self._name}{loss}")

    def note(self, text: str) -> None:
        pass  # a line per validation and run would bury the study's own

    def end(self, name: str, result: str) -> None:
        self._bar.console.print(f"{name}: {result}")
        self._bar.update(self._task, completed=self._done + 1)
