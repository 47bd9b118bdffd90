"""Runs of a study in parallel, in worker processes that take one run after another.

Workers have their own session, so that a terminal's Ctrl-C does not reach them: the study's process forwards a signal
once and waits until they have saved. A worker whose study is gone gets a broken pipe, saves and exits as well.
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

from pretextlm.study.run_executor import RunExecutor, reason
from pretextlm.study.study_results import StudyRecorder

POLL_SECONDS = 0.2


@dataclass(frozen=True)
class QueuedRun:
    """A run that waits for a worker.

    Attributes:
        name: unique in the study.
        recipe: called when the run starts.
        directory: of the run.
        after: names of the runs that must end before it.
    """

    name: str
    recipe: Callable[[], Any]
    directory: Path
    after: tuple[str, ...] = ()


class Worker:
    """A process that executes one run after another."""

    def __init__(self, slot: int, jobs: int, executor: RunExecutor, command: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, slot, jobs, executor, tuple(command)))
        self.process.start()
        theirs.close()
        self.turn: QueuedRun | None = None

    def give(self, turn: QueuedRun, recipe: Any) -> None:
        self.turn = turn
        self.pipe.send((recipe, turn.directory))

    def hear(self) -> tuple[Any, ...]:
        """Returns the next message: ("step", share, values), ("end", failure or None) or ("left", reason) for an
        unfinished run.
        """
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


def run_in_parallel(
    turns: Sequence[QueuedRun], jobs: int, executor: RunExecutor, command: Sequence[str], recorder: StudyRecorder
) -> None:
    """Execute every run, `jobs` at a time, in an order that respects their dependencies.

    Raises:
        Stopped: a signal arrived.
    """
    from pretextlm.training.signals import StopFlag, Stopped
    from pretextlm.training.time_limit import stop_time

    waiting, workers = list(turns), [Worker(slot, jobs, executor, command) for slot in range(min(jobs, len(turns)))]
    try:
        limit = stop_time()
        with StopFlag(limit[0] if limit else None) as stop:
            while (waiting or _busy(workers)) and not stop.number:
                for slot, worker in enumerate(workers):
                    if worker.turn is None and not worker.process.is_alive():
                        workers[slot] = worker = Worker(slot, jobs, executor, command)
                    if worker.turn is None:
                        _give_next(worker, waiting, workers, recorder)
                _listen(workers, recorder)
            if stop.number:
                for worker in workers:
                    worker.signal(signal.SIGTERM)
                while _busy(workers):
                    _listen(workers, recorder, stopping=True)
                raise Stopped(stop.number)
    finally:
        for worker in workers:
            worker.close()


def _busy(workers: Sequence[Worker]) -> list[str]:
    return [worker.turn.name for worker in workers if worker.turn is not None]


def _give_next(worker: Worker, waiting: list[QueuedRun], workers: Sequence[Worker], recorder: StudyRecorder) -> None:
    """Give a worker the first run whose dependencies have ended, if there is one."""
    unmade = {*_busy(workers), *(turn.name for turn in waiting)}
    turn = next((turn for turn in waiting if unmade.isdisjoint(turn.after)), None)
    if turn is None:
        return
    waiting.remove(turn)
    recorder.begin(turn.name)
    try:
        worker.give(turn, turn.recipe())
    except Exception as error:  # one run's fault, as if it had come in training
        worker.turn = None
        recorder.end(turn.name, reason(error, turn.name))


def _listen(workers: Sequence[Worker], recorder: StudyRecorder, stopping: bool = False) -> None:
    """Process pending messages of busy workers. While all are stopping, an unfinished run does not count as failed."""
    speaking = {worker.pipe: worker for worker in workers if worker.turn is not None}
    for pipe in wait(list(speaking), POLL_SECONDS):
        worker = speaking[pipe]  # type: ignore[index]
        assert worker.turn is not None, "busy"
        name = worker.turn.name
        kind, *said = worker.hear()
        if kind == "step":
            recorder.step(name, *said)
            continue
        worker.turn = None
        if kind == "end" or not stopping:
            recorder.end(name, *said)


class _PipeProgress:
    """The progress of a trainer in a worker, sent to the study's process."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe = pipe

    def step(self, share: float, values: Mapping[str, float]) -> None:
        try:
            self.pipe.send(("step", share, dict(values)))
        except OSError:  # the study is gone
            signal.raise_signal(signal.SIGTERM)

    def note(self, text: str) -> None:
        pass


def _work(pipe: Connection, slot: int, jobs: int, executor: RunExecutor, command: Sequence[str]) -> None:
    """Main loop of a worker. Threads are divided among workers; with several GPUs, each worker has one."""
    os.setsid()
    import torch

    from pretextlm.training.runtime import tune_process
    from pretextlm.training.signals import Stopped
    from pretextlm.training.time_limit import JOB_END

    os.environ.pop(JOB_END, None)  # the study ends its workers
    tune_process()
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(slot % torch.cuda.device_count())
    with suppress(EOFError, OSError):
        while (job := pipe.recv()) is not None:
            recipe, directory = job
            try:
                failure = executor.execute(lambda made=recipe: made, directory, command, _PipeProgress(pipe))  # type: ignore[misc]
            except Stopped as stopped:
                pipe.send(("left", str(stopped)))
                return
            pipe.send(("end", failure))
