"""SIGINT and SIGTERM set a flag that long-running code polls to save and exit. A second signal exits at once."""

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
    """A signal ended the training after a checkpoint was saved.

    Attributes:
        exit_code: 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interrupted(BaseException):
    """A signal arrived during work that is to be abandoned.

    It derives from BaseException so that no `except Exception` mistakes it for an error.
    """


class StopFlag:
    """Signal handler as a context manager: after `with StopFlag() as stop:`, `stop.number` is 0 or the signal received.

    Handlers can only be installed in the main thread; in any other thread the flag is never set.
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
        """Polls the flag.

        Raises:
            Interrupted: a signal was received.
        """
        if self.number:
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that cannot poll and may be abandoned: a signal raises Interrupted within the block.

        It is raised repeatedly until the block is left, because the interrupted code, such as a destructor, may
        swallow an exception.
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
