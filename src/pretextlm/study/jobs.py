"""Runs of a study side by side, each in a process of its own that goes from run to run.

A session of its own keeps a terminal's Ctrl-C from the workers: who runs the study passes one signal on, once, and
waits until they have saved. A worker whose study is gone finds its pipe broken, saves and leaves as well.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pretextlm.study.run_executor import Maker, reason
from pretextlm.study.study_results import Watcher

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Turn:
    """A run that is to be made.

    Attributes:
        name: unique in the study.
        recipe: called when its turn has come.
        directory: that it fills.
        after: names of runs that come before it.
    """

    name: str
    recipe: Callable[[], Any]
    directory: Path
    after: tuple[str, ...] = ()


class Worker:
    """A process that makes one run after another."""

    def __init__(self, slot: int, jobs: int, maker: Maker, command: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, slot, jobs, maker, tuple(command)))
        self.process.start()
        theirs.close()
        self.turn: Turn | None = None

    def give(self, turn: Turn, recipe: Any) -> None:
        self.turn = turn
        self.pipe.send((recipe, turn.directory))

    def hear(self) -> tuple[Any, ...]:
        """("step", share, values), ("end", the failure or None), or ("left", why) for a run that has not ended."""
        try:
            said: tuple[Any, ...] = self.pipe.recv()
            return said
        except (EOFError, OSError):
            self.process.join()
            return "left", f"its process ended with exit code {self.process.exitcode}"

    def signal(self, number: int) -> None:
        if self.process.pid and self.process.is_alive():
            os.kill(self.process.pid, number)

    def close(self) -> None:
        with suppress(OSError):
            self.pipe.send(None)
        self.pipe.close()
        self.process.join()


def side_by_side(turns: Sequence[Turn], jobs: int, maker: Maker, command: Sequence[str], watcher: Watcher) -> None:
    """Make every run, `jobs` at a time, none before those it comes after. Raises Stopped when a signal came."""
    from pretextlm.training.signals import StopFlag, Stopped

    waiting, workers = list(turns), [Worker(slot, jobs, maker, command) for slot in range(min(jobs, len(turns)))]
    try:
        with StopFlag() as stop:
            while (waiting or _busy(workers)) and not stop.number:
                for slot, worker in enumerate(workers):
                    if worker.turn is None and not worker.process.is_alive():
                        workers[slot] = worker = Worker(slot, jobs, maker, command)
                    if worker.turn is None:
                        _give_next(worker, waiting, workers, watcher)
                _listen(workers, watcher)
            if stop.number:
                for worker in workers:
                    worker.signal(signal.SIGTERM)
                while _busy(workers):
                    _listen(workers, watcher, stopping=True)
                raise Stopped(stop.number)
    finally:
        for worker in workers:
            worker.close()


def _busy(workers: Sequence[Worker]) -> list[str]:
    return [worker.turn.name for worker in workers if worker.turn is not None]


def _give_next(worker: Worker, waiting: list[Turn], workers: Sequence[Worker], watcher: Watcher) -> None:
    """The first run that waits for no other, if there is one."""
    unmade = {*_busy(workers), *(turn.name for turn in waiting)}
    turn = next((turn for turn in waiting if unmade.isdisjoint(turn.after)), None)
    if turn is None:
        return
    waiting.remove(turn)
    watcher.begin(turn.name)
    try:
        worker.give(turn, turn.recipe())
    except Exception as error:  # one run's fault, as if it had come in training
        worker.turn = None
        watcher.end(turn.name, reason(error, turn.name))


def _listen(workers: Sequence[Worker], watcher: Watcher, stopping: bool = False) -> None:
    """Hear what busy workers say, for a moment. While all are stopping, a run that is left has not failed."""
    speaking = {worker.pipe: worker for worker in workers if worker.turn is not None}
    for pipe in wait(list(speaking), POLL_SECONDS):
        worker = speaking[pipe]  # type: ignore[index]
        assert worker.turn is not None, "busy"
        name = worker.turn.name
        kind, *said = worker.hear()
        if kind == "step":
            watcher.step(name, *said)
            continue
        worker.turn = None
        if kind == "end" or not stopping:
            watcher.end(name, *said)


class _Teller:
    """The trainer's display in a worker: it tells the study."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def step(self, share: float, values: Mapping[str, float]) -> None:
        try:
            self.pipe.send(("step", share, dict(values)))
        except OSError:  # the study is gone
            signal.raise_signal(signal.SIGTERM)

    def note(self, text: str) -> None:
        pass


def _work(pipe: Connection, slot: int, jobs: int, maker: Maker, command: Sequence[str]) -> None:
    """A worker's life. Threads are shared out; of several GPUs each worker has one."""
    os.setsid()
    import torch

    from pretextlm.training.runtime import tune_process
    from pretextlm.training.signals import Stopped

    tune_process()
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())
    with suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            recipe, directory = job
            try:
                failure = maker.make(lambda made=recipe: made, directory, command, _Teller(pipe))  # type: ignore[misc]
            except Stopped as stopped:
                pipe.send(("left", str(stopped)))
                return
            pipe.send(("end", failure))
