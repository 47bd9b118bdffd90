"""Ends a process that hangs or has lost its peers, with a message and the stack of every thread.

Two things can go wrong between processes. One of them dies: the others get a network error at their next exchange.
Or one of them hangs: the others give up after `timeout_seconds`, and so does the one that hangs, by a thread that
notices that it completes no steps.
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
"""Share of the timeout after which a hanging process ends itself: a little later than those that wait for it, so that
they can still report the timeout."""
STACKS = "stacks"
NETWORK_ERROR_WORDS = ("gloo", "nccl", "by peer", "broken pipe", "timed out waiting", "wait timeout")
"""Words in the messages of network errors that are plain RuntimeErrors."""


class Watch:
    """Ends the process unless `alive` is called at least once per `timeout_seconds`.

    Args:
        distributed: this process and its peers.
        directory: of the run, for the file with the threads' stacks.
        timeout_seconds: longest time without a sign of progress.
    """

    def __init__(self, distributed: DistributedContext, directory: Path, timeout_seconds: float) -> None:
        self.distributed, self.seconds = distributed, timeout_seconds
        self.stacks = directory / f"{STACKS}-rank{distributed.rank}.txt"
        self._seen = time.monotonic()
        self._over = threading.Event()

    def alive(self) -> None:
        """Reports that this process makes progress."""
        self._seen = time.monotonic()

    def begin(self) -> None:
        """Starts watching, in a background thread."""
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def end(self) -> None:
        """Stops watching."""
        self._over.set()

    def write_stacks(self, error: BaseException | None = None) -> str:
        """Writes the stack of every thread, and the traceback of `error`, into the run directory.

        Returns:
            Path of the file; "above" if it could not be written and the stacks went to stderr.
        """
        trace = "".join(traceback.format_exception(error)) if error else ""
        try:
            with self.stacks.open("w", encoding="utf-8") as file:
                file.write(f"rank {self.distributed.rank}, process {os.getpid()}\n{trace}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            return str(self.stacks)
        except (OSError, ValueError):
            sys.stderr.write(trace)
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
            "hint:  Continue from the last checkpoint with --resume.\n"
        )
        sys.stderr.flush()
        os._exit(2)


@contextmanager
def watched(distributed: DistributedContext, directory: Path, timeout_seconds: float) -> Iterator[Watch]:
    """Watches this process until the block ends, if there are other processes.

    Yields:
        The watch, whose `alive` is to be called.

    Raises:
        UserError: another process died, or did not answer in time.
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
    """Returns whether an exchange between processes failed."""
    from torch.distributed import DistError

    text = str(error).lower()
    return isinstance(error, DistError) or any(word in text for word in NETWORK_ERROR_WORDS)


def lost(error: BaseException, distributed: DistributedContext, timeout_seconds: float, stacks: str) -> UserError:
    """Describes a failed exchange.

    Args:
        error: raised by torch.distributed.
        stacks: where the threads' stacks were written.

    Returns:
        The error to raise.
    """
    late = any(word in str(error).lower() for word in ("timed out", "timeout"))
    cause = (
        f"waited {timeout_seconds:g} seconds for the other processes (training.timeout_seconds): one hangs or has ended"
        if late
        else "lost another process, which ended or cannot be reached any more"
    )
    return UserError(
        f"Rank {distributed.rank} of {distributed.world_size} {cause}. The stack of each thread: {stacks}.",
        "Read the messages of the others; then restart all with --resume to continue from the last checkpoint.",
    )
