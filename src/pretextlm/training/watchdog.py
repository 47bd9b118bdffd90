"""No process waits for ever for another, or hangs unseen: it ends with a message, and says what each thread was doing.

Two things can happen among processes. One is lost: the others learn it at their next exchange, as an error of the
network. Or one hangs: the others give up after `timeout_seconds`, and so does the one that hangs, by a thread that
notices that it makes no steps.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pretextlm.errors import UserError
from pretextlm.training.distributed import DistributedContext

PATIENCE = 1.1
"""A process that hangs ends itself a little later than those that wait for it, which then can say so."""
STACKS = "stacks"
SPOKEN_OF = ("gloo", "nccl", "by peer", "broken pipe", "timed out waiting", "wait timeout")
"""Words of errors of the network that have no type of their own."""


class Watch:
    """`alive` is called at least once in so many seconds, or the process ends."""

    def __init__(self, distributed: DistributedContext, directory: Path, timeout_seconds: float) -> None:
        self.distributed, self.seconds = distributed, timeout_seconds
        self.stacks = directory / f"{STACKS}-rank{distributed.rank}.txt"
        self._seen = time.monotonic()
        self._over = threading.Event()

    def alive(self) -> None:
        """Say that this process makes progress."""
        self._seen = time.monotonic()

    def begin(self) -> None:
        """Watch from now on, in the background."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def end(self) -> None:
        self._over.set()

    def write_stacks(self, error: BaseException | None = None) -> str:
        """What each thread is doing, and where an error came from; returns where it stands."""
        came = "".join(traceback.format_exception(error)) if error else ""
        try:
            with self.stacks.open("w", encoding="utf-8") as file:
                file.write(f"rank {self.distributed.rank}, process {os.getpid()}\n{came}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            return str(self.stacks)
        except (OSError, ValueError):
            sys.stderr.write(came)
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
            return "above"

    def _watch(self) -> None:
        while (left := self._seen + PATIENCE * self.seconds - time.monotonic()) > 0:
            if self._over.wait(left):
                return
        where = self.write_stacks()
        sys.stderr.write(
            f"error: Rank {self.distributed.rank} has made no step for {self.seconds:g} seconds "
            f"(training.timeout_seconds); it ends, and the others with it. The stack of each thread: {where}.\n"
            "hint:  Go on with --resume from the last checkpoint.\n"
        )
        sys.stderr.flush()
        os._exit(2)


@contextmanager
def watched(distributed: DistributedContext, directory: Path, timeout_seconds: float) -> Iterator[Watch]:
    """Watch this process for as long as the block lasts, if there are others.

    Raises:
        UserError: another process was lost, or did not answer in time.
    """
    watch = Watch(distributed, directory, timeout_seconds)
    if distributed.world_size == 1:
        yield watch
        return
    watch.begin()
    try:
        yield watch
    except RuntimeError as error:
        if not is_of_network(error):
            raise
        raise lost(error, distributed, timeout_seconds, watch.write_stacks(error)) from None
    finally:
        watch.end()


def is_of_network(error: BaseException) -> bool:
    """Whether an exchange between processes failed."""
    from torch.distributed import DistError

    text = str(error).lower()
    return isinstance(error, DistError) or any(word in text for word in SPOKEN_OF)


def lost(error: BaseException, distributed: DistributedContext, timeout_seconds: float, stacks: str) -> UserError:
    """The error that people see."""
    late = any(word in str(error).lower() for word in ("timed out", "timeout"))
    what = (
        f"waited {timeout_seconds:g} seconds for the other processes (training.timeout_seconds): one hangs or has ended"
        if late
        else "lost another process, which ended or cannot be reached any more"
    )
    return UserError(
        f"Rank {distributed.rank} of {distributed.world_size} {what}. What its threads were doing: {stacks}.",
        "See what the others say; then start all of them again with --resume, which goes on from the last checkpoint.",
    )
