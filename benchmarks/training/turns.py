"""The turns in which the processes of a benchmark train: a line on stdin starts one, a line on stdout reports it."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.training.resident import forget_peak, peak


class Turns:
    """Waits for a turn, and reports the previous one.

    Between turns, CPU time goes into batches that are prepared ahead, so a turn's CPU time starts when the previous
    one ends; its wall time starts when it is its turn.

    Args:
        steps: number of steps of a turn.
        facts: values for the table, such as the number of parameters.
        before: bytes of memory before the model was created; a turn's memory is its peak above them.
        memory: gives the most bytes of memory so far.
    """

    def __init__(self, steps: int, facts: Mapping[str, Any], before: int, memory: Callable[[], int] = peak) -> None:
        self.before, self.memory = before, memory
        self._channel = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.steps, self.done = steps, 0
        self._say(facts)
        self._wait()

    def step(self, tokens: int) -> None:
        """Called after each step.

        Args:
            tokens: of the step, without padding.
        """
        self.done += 1
        if self.done % self.steps:
            self.tokens += tokens
            return
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        self._say({"cpu": cpu, "wall": wall, "tokens": self.tokens + tokens, "memory": self.memory() - self.before})
        self._wait()

    def _wait(self) -> None:
        self._cpu, self.tokens = time.process_time(), 0
        if not sys.stdin.readline():
            raise SystemExit(0)
        self._wall = time.perf_counter()
        forget_peak()

    def _say(self, line: Mapping[str, Any]) -> None:
        print(json.dumps(line), file=self._channel, flush=True)
