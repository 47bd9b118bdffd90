"""Signals set a flag that long-running code polls to save and exit: SIGINT, SIGTERM, SIGHUP and SIGUSR1.

A second SIGINT or SIGTERM exits at once. The other two do not: a shell and the kernel both send SIGHUP when a terminal
is closed, and schedulers send SIGUSR1 some time before SIGTERM (Slurm: --signal=B:USR1@120). Under nohup, SIGHUP stays
ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

AGAIN_SECONDS = 0.5
INSISTENT = (signal.SIGINT, signal.SIGTERM)
"""Signals that exit at once when one of them comes again."""
HANDLED = (*INSISTENT, signal.SIGHUP, signal.SIGUSR1)


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

    Handlers can only be installed in the main thread; in any other thread only the time limit sets the flag.

    Args:
        until: seconds since 1970 at which the flag is set as by SIGUSR1; None: no limit.
    """

    def __init__(self, until: float | None = None) -> None:
        self.number = 0
        self._at_once = self._asked = False
        self._timer = None if until is None else threading.Timer(max(0.0, until - time.time()), self._time_is_up)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in HANDLED:
                if number in INSISTENT or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._raise_flag)
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # it must not send a signal that nobody handles any more
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _time_is_up(self) -> None:
        """Runs in the timer's thread. Only a signal interrupts what the main thread does."""
        main = threading.main_thread().ident
        if signal.SIGUSR1 in self._previous and main is not None:
            signal.pthread_kill(main, signal.SIGUSR1)
        else:
            self.number = self.number or signal.SIGUSR1

    def _raise_flag(self, number: int, frame: FrameType | None) -> None:
        if number in INSISTENT:
            if self._asked:
                os._exit(128 + number)
            self._asked = True
        if self.number:
            return
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
