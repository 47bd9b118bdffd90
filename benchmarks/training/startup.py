"""Seconds from the start of `pretextlm pretrain` to the end of its first training step, through the real command.

    python -m benchmarks.training.startup --json build/benchmarks/startup.json

"warm" has the compiler's cache of an earlier run, "cold" an empty one. CPU seconds count the process and its children.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training import output
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import speeches

from pretextlm.config import write_toml

GOAL_SECONDS = 5.0
CASES = {"not compiled": "off", "compiled, warm": "on", "compiled, cold": "on"}


def first_step(recipe: Path, out: Path, cache: Path, threads: int) -> dict[str, float]:
    """Run the command until its first step is logged, then stop it with SIGTERM."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "pretextlm.cli.main", "pretrain", str(recipe), "--out", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    metrics = out / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size):
        if process.poll() is not None:
            raise RuntimeError(f"the command ended early with exit code {process.returncode}")
        time.sleep(0.005)
    took = {"seconds": time.perf_counter() - start, "cpu": _cpu_seconds(process.pid)}
    process.send_signal(signal.SIGTERM)
    process.wait()
    return took


def _cpu_seconds(process: int) -> float:
    """User and system time of a process and of its children that have ended."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(setting: Setting, repetitions: int, threads: int) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for case, compiled in CASES.items():
            values = setting.recipe(budget_steps=1000, compile=compiled, threads=threads, log_every=1)
            recipe = work / "recipe.toml"
            recipe.write_text(write_toml(values))
            if case.endswith("warm"):
                first_step(recipe, work / "warming", work / "warm", threads)
            runs = []
            for repetition in range(repetitions):
                cache = work / (f"cold-{repetition}" if case.endswith("cold") else "warm")
                runs.append(first_step(recipe, work / f"{case}-{repetition}", cache, threads))
            middle = {key: median(run[key] for run in runs) for key in ("seconds", "cpu")}
            found.append({"objective": setting.objective, "case": case, **middle, "runs": runs})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found: list[dict[str, Any]] = []
    for objective in options.objectives:
        found += measure(Setting(objective, speeches(8192)), options.repetitions, options.threads)
    rows = [[f"{r['objective']}, {r['case']}", f"{r['seconds']:.1f}", f"{r['cpu']:.1f}"] for r in found]
    title = f"start to the end of the first step, {options.threads} threads, goal {GOAL_SECONDS:g} s warm"
    output.show(title, ["case", "seconds", "CPU seconds"], rows)
    output.write(options.json, "startup", {"threads": options.threads, "results": found})


if __name__ == "__main__":
    main()
