"""SIGINT and SIGTERM set a flag; whoever works long polls it, saves and leaves. A second signal leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

AGAIN_SECONDS = 0.5


class Stopped(Exception):
    """A signal asked for the end and everything was saved; the exit code is 128 + the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interrupted(BaseException):
    """A signal came in the midst of work that is to be left; no Exception, so that nobody takes it for a fault."""


class StopFlag:
    """`with StopFlag() as stop:` and then `stop.number` is 0, or the signal that came.

    Outside the main thread no handler can be set: the flag then never rises.
    """

    def __init__(self) -> None:
        self.number = 0
        self._at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._raise_flag)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        if self._at_once:
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS, AGAIN_SECONDS)
            raise Interrupted

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self._at_once:
            raise Interrupted

    def check(self) -> None:
        """Raises Interrupted when a signal has come."""
        if self.number:
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that cannot poll and loses nothing when it is left: a signal raises Interrupted within it.

        And again until it is left: whatever runs as the signal comes, a destructor for one, may swallow an exception.
        """
        self.check()
        here = threading.current_thread() is threading.main_thread()
        previous = signal.signal(signal.SIGALRM, self._again) if here else None
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False
            if here:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, previous)
