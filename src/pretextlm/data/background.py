"""Work that does not react to signals, such as a library's training loop, made to stop at Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

TICK_SECONDS = 0.5


def in_background(work: Callable[[], T], tick: Callable[[float], None]) -> T:
    """Do work in a thread and wait for it: Ctrl-C raises KeyboardInterrupt at once, and the result is dropped.

    The thread is then left to itself and ends with the process, so `work` must write nothing.

    Args:
        work: must release Python's lock for most of its time.
        tick: called with the seconds since the start, twice a second.

    Returns:
        What `work` returns. Its exceptions are raised here.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    start = time.monotonic()
    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            return future.result(TICK_SECONDS)
        except TimeoutError:
            if future.done():
                raise
            tick(time.monotonic() - start)
