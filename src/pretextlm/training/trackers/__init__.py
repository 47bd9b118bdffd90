"""Trackers show the numbers of metrics.jsonl elsewhere as they are logged. None of them can stop a training.

Each runs in a thread of its own behind a queue. One that raises is reported once and dropped; one that hangs loses
lines and is abandoned at the end. metrics.jsonl is complete in any case.
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
"""Longest time for all trackers together to send their remaining lines when a run ends."""


@runtime_checkable
class Tracker(Protocol):
    """Shows numbers. It is constructed by `Tracker(directory, recipe, step)`.

    Args:
        directory: of the run.
        recipe: of the run.
        step: that training starts or resumes from.
    """

    def __init__(self, directory: Path, recipe: Recipe, step: int) -> None: ...

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


TRACKERS = ClassRegistry("tracker", "pretextlm.training.trackers", "pretextlm.trackers", Tracker)  # type: ignore[type-abstract]


class Trackers:
    """All trackers of a run.

    Args:
        names: of the trackers, as registered.
        directory: of the run.
        recipe: of the run.
        step: that training starts or resumes from.
        tell: called with a message for the user when a tracker is dropped.
    """

    def __init__(
        self, names: Sequence[str], directory: Path, recipe: Recipe, step: int, tell: Callable[[str], None]
    ) -> None:
        self._guests = [_Guest(name, directory, recipe, step, tell) for name in names]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Queues numbers by name for each tracker; returns at once."""
        for guest in self._guests:
            guest.log(step, values)

    def close(self) -> None:
        """Waits until the trackers have sent their lines, at most for `CLOSING_SECONDS`."""
        end = time.monotonic() + CLOSING_SECONDS
        for guest in self._guests:
            guest.ask_to_end()
        for guest in self._guests:
            guest.wait(end - time.monotonic())


def check_installed(names: Sequence[str]) -> None:
    """Checks that trackers can be used.

    Raises:
        UserError: there is no such tracker, or its package is not installed.
    """
    for name in names:
        _ = TRACKERS[name]
        if find_spec(name) is None:
            raise missing_extra(name, name, f"training.trackers = [{name!r}]")


def hanging() -> bool:
    """Returns whether an abandoned tracker is still running, for which the interpreter would wait at exit."""
    return any(thread.name.startswith(THREAD) for thread in threading.enumerate())


class _Guest:
    """One tracker and its thread."""

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

    def _drop(self, reason: str) -> None:
        if not self._dropped:
            self._dropped = True
            self._tell(f"the tracker {self._name} {reason}; training goes on without it")
