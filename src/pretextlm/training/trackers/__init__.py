"""Trackers: who shows the numbers of metrics.jsonl elsewhere as they come. They are guests: none can stop a training.

Each works in a thread of its own behind a queue. One that raises is told of once and dropped; one that hangs loses
lines, and is left behind at the end. metrics.jsonl is complete whatever happens to them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

from pretextlm.errors import missing_extra
from pretextlm.registry import ClassRegistry
from pretextlm.training.recipe import Recipe

THREAD = "tracker"
WAITING_LINES = 10_000
CLOSING_SECONDS = 10.0
"""How long all trackers together may take to send what they hold when a run ends."""


@runtime_checkable
class Tracker(Protocol):
    """Shows numbers. Made by `Tracker(directory, recipe, step)`: of a run, and the step from which it goes on."""

    def __init__(self, directory: Path, recipe: Recipe, step: int) -> None: ...

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


TRACKERS = ClassRegistry("tracker", "pretextlm.training.trackers", "pretextlm.trackers", Tracker)  # type: ignore[type-abstract]


class Trackers:
    """All trackers of a run.

    Args:
        tell: given a line for people when a tracker is dropped.
    """

    def __init__(
        self, names: Sequence[str], directory: Path, recipe: Recipe, step: int, tell: Callable[[str], None]
    ) -> None:
        self._guests = [_Guest(name, directory, recipe, step, tell) for name in names]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on numbers by name; returns at once."""
        for guest in self._guests:
            guest.log(step, values)

    def close(self) -> None:
        """Let them finish, for as long as they may."""
        end = time.monotonic() + CLOSING_SECONDS
        for guest in self._guests:
            guest.ask_to_end()
        for guest in self._guests:
            guest.wait(end - time.monotonic())


def check_installed(names: Sequence[str]) -> None:
    """Raises UserError for a tracker that does not exist or whose package is not installed."""
    for name in names:
        _ = TRACKERS[name]
        if find_spec(name) is None:
            raise missing_extra(name, name, f"training.trackers = [{name!r}]")


def hanging() -> bool:
    """Whether one that was left behind still works: the end of the program would wait for it."""
    return any(thread.name.startswith(THREAD) for thread in threading.enumerate())


class _Guest:
    """One tracker and the thread that it works in."""

    def __init__(self, name: str, directory: Path, recipe: Recipe, step: int, tell: Callable[[str], None]) -> None:
        self._name, self._place, self._tell = name, (directory, recipe, step), tell
        self._lines: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(WAITING_LINES)
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name=f"{THREAD} {name}", daemon=True)
        self._thread.start()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._dropped:
            return
        try:
            self._lines.put_nowait((step, dict(values)))
        except queue.Full:
            self._drop("does not keep up")

    def ask_to_end(self) -> None:
        if not self._dropped:
            try:
                self._lines.put_nowait(None)
            except queue.Full:
                self._drop("does not keep up")

    def wait(self, seconds: float) -> None:
        if self._dropped:
            return
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._drop("does not end")

    def _work(self) -> None:
        try:
            tracker: Tracker = TRACKERS[self._name](*self._place)
            while (line := self._lines.get()) is not None:
                tracker.log(*line)
            tracker.close()
        except BaseException as error:
            self._drop(f"failed ({type(error).__name__}: {str(error)[:200]})")

    def _drop(self, what: str) -> None:
        if not self._dropped:
            self._dropped = True
            self._tell(f"the tracker {self._name} {what}; training goes on without it")
