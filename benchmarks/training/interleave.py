"""Sides of a measurement take turns on one core, so that what disturbs one disturbs all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.training.setting import Setting


@dataclass(frozen=True)
class Side:
    """Attributes: name: for the table; side: "ours", "peer" or "trainer"; options: its own."""

    name: str
    side: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Worker:
    """A side's process."""

    def __init__(self, side: Side, setting: Setting, steps: int, module: str) -> None:
        order = {"side": side.side, "setting": setting.plain(), "steps": steps, "options": dict(side.options)}
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
        command = [sys.executable, "-m", module, json.dumps(order)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.facts = self._hear()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None, "opened with a pipe"
        self.process.stdin.close()
        self.process.wait()

    def turn(self) -> dict[str, float]:
        """One window of steps: its CPU seconds, wall seconds and real tokens."""
        assert self.process.stdin is not None, "opened with a pipe"
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None, "opened with a pipe"
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended: {' '.join(self.process.args[:3])}")  # type: ignore[index]
        return dict(json.loads(line))


def take_turns(
    sides: Sequence[Side], setting: Setting, steps: int, turns: int, module: str = "benchmarks.training.worker"
) -> dict[str, dict[str, Any]]:
    """Tokens per CPU second of each side, the rates of all turns and their median, and the most memory of a turn.

    The first turn warms up.
    """
    rates: dict[str, list[float]] = {side.name: [] for side in sides}
    memory: dict[str, list[float]] = {side.name: [] for side in sides}
    with ExitStack() as stack:
        workers = {}
        for side in sides:
            workers[side.name] = stack.enter_context(Worker(side, setting, steps, module))
            workers[side.name].turn()
        for _ in range(turns):
            for name, worker in workers.items():
                took = worker.turn()
                rates[name].append(took["tokens"] / took["cpu"])
                memory[name].append(took["memory"])
        facts = {name: worker.facts for name, worker in workers.items()}
    return {
        name: {**facts[name], "rate": median(rates[name]), "rates": rates[name], "memory": max(memory[name])}
        for name in rates
    }


def ratio(results: Mapping[str, Mapping[str, Any]], one: str, other: str) -> float:
    """Median over the turns of one side's rate by the other's in the same turn."""
    pairs = zip(results[one]["rates"], results[other]["rates"], strict=True)
    return median(a / b for a, b in pairs)
