"""A minute, or three, of two CPU cores on tinyshakespeare, character by character, against a plain GPT.

    python -m benchmarks.training.shakespeare TEXT --json build/benchmarks/shakespeare.json

TEXT is the corpus (1,115,394 characters; the first 90 % are for training, the last 10 % for validation). Both sides
read the same store. Ours is `pretextlm pretrain recipes/shakespeare_char.toml`, run as a user runs it; the rival is
nanoGPT's published run on a CPU (plain_gpt.py) as published, and at its best learning rate with the schedule spanning
all of the time. A time is that of the whole process, from start to exit: imports, compilation and validation included.
Losses are nats per character over the whole validation text, each side in windows of its own training length that do
not overlap. The time that ours needs for the rival's loss is looked for with shorter and shorter budgets, each
schedule ending at its own stop.

On a machine that does other things, seconds say little: with --work both sides have budgets of work instead, about what
an idle machine does in that time, on one thread, and are compared by the CPU seconds of their whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.training import output
from benchmarks.training.stores import store_of

from pretextlm.config import apply_overrides, read_toml, write_toml

RECIPE = Path("recipes/shakespeare_char.toml")
WIDER = ("model.hidden_size=192", "model.num_attention_heads=3", "training.cooldown=0.5")
CHANGES: dict[int, tuple[str, ...]] = {60: (), 180: WIDER}
"""Whole seconds → what the recipe's head comment tells to change."""
TRAINING = {60: 42.0, 180: 150.0}
"""Whole seconds → those of training; the rest is for start, compiler and validation."""
TOKENS, STEPS = {60: 1.8e6, 180: 4.5e6}, {60: 1800, 180: 5600}
"""The same as work: tokens of ours, steps of the rival."""
GOALS = {60: 1.60, 180: 1.52}
SHARES = (0.5, 0.3, 0.2, 0.12)
"""Of our budget that are tried for the rival's loss."""
RATES = (1e-3, 2e-3, 4e-3, 8e-3)
PUBLISHED: dict[str, Any] = {"learning_rate": 1e-3, "steps": 2000}


def timed(command: Sequence[str], threads: int) -> tuple[str, dict[str, float]]:
    """A process's output, and what the whole of it took."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    load, start = os.getloadavg()[0], time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None, "opened with a pipe"
    printed = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[:5])} ended with exit code {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    return printed, {"wall": time.perf_counter() - start, "cpu": cpu, "load": load}


def run_ours(store: str, seed: int, budget: Budget, share: float = 1.0) -> dict[str, Any]:
    """The recipe through the command line, with the changes of this budget."""
    recipe = apply_overrides(read_toml(RECIPE), CHANGES[budget.seconds])
    recipe["training"] = {k: v for k, v in recipe["training"].items() if "budget" not in k} | budget.ours(share)
    with tempfile.TemporaryDirectory() as directory:
        file, run = Path(directory) / "recipe.toml", Path(directory) / "run"
        file.write_text(write_toml(recipe))
        command = [sys.executable, "-m", "pretextlm.cli.main", "pretrain", str(file), f"data.store={store}"]
        took = timed([*command, f"seed={seed}", "--out", str(run)], budget.threads)[1]
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        cost = json.loads((run / "cost.json").read_text())
    loss = [line["loss"] for line in lines if line["kind"] == "validation"][-1]
    kept = {name: cost[name] for name in ("parameters", "steps", "tokens", "seconds", "compile_seconds")}
    return told({"side": "pretextlm", "loss": loss, "seed": seed, "share": share, **took, **kept})


def run_rival(store: str, seed: int, threads: int, **options: Any) -> dict[str, Any]:
    """The plain GPT; `seconds` are those of the whole process."""
    order = {"store": store, "seed": seed, "started": time.time(), **options}
    printed, took = timed([sys.executable, "-m", "benchmarks.training.plain_gpt", json.dumps(order)], threads)
    return told({"side": "plain GPT", "seed": seed, **options, **took, **json.loads(printed)})


def told(run: dict[str, Any]) -> dict[str, Any]:
    what = f"rate {run['learning_rate']:g}" if "learning_rate" in run else f"{run['share']:.0%}"
    took = f"{run['wall']:.0f} s, {run['cpu']:.0f} CPU seconds, load {run['load']:.1f} before"
    print(f"  {run['side']} seed {run['seed']}, {what}: {run['loss']:.4f} in {took}", flush=True)
    return run


@dataclass(frozen=True)
class Budget:
    """Attributes: seconds: of the whole process; work: both sides do what is about as much; threads; compiled: the
    rival is."""

    seconds: int
    work: bool
    threads: int
    compiled: bool

    def ours(self, share: float = 1.0) -> dict[str, float]:
        """The recipe's budget, or a share of it."""
        return (
            {"budget_tokens": share * TOKENS[self.seconds]}
            if self.work
            else {"budget_seconds": share * TRAINING[self.seconds]}
        )

    def rival(self) -> dict[str, Any]:
        """Options of the rival."""
        long = {"steps": STEPS[self.seconds]} if self.work else {"seconds": self.seconds}
        return {**long, "compile": self.compiled}


def tuned(store: str, budget: Budget) -> list[dict[str, Any]]:
    """The rival at every learning rate, more of them while the best is at an edge; the best comes first."""

    def attempt(rate: float) -> dict[str, Any]:
        return run_rival(store, 0, budget.threads, learning_rate=rate, **budget.rival())

    runs = [attempt(rate) for rate in RATES]
    while True:
        runs.sort(key=lambda run: float(run["learning_rate"]))
        best = min(runs, key=lambda run: float(run["loss"]))
        if best not in (runs[0], runs[-1]):
            return sorted(runs, key=lambda run: float(run["loss"]))
        runs.append(attempt(best["learning_rate"] * (2 if best is runs[-1] else 0.5)))


def measure(store: str, budget: Budget, seeds: int) -> dict[str, Any]:
    """Both sides take turns, seed by seed."""
    tuning = tuned(store, budget)
    options = {**budget.rival(), "learning_rate": tuning[0]["learning_rate"]}
    ours, rivals = [], []
    for seed in range(seeds):
        ours.append(run_ours(store, seed, budget))
        rivals.append(run_rival(store, seed, budget.threads, **options))
    target, shorter = fmean(run["loss"] for run in rivals), []
    for share in SHARES:
        runs = [run_ours(store, seed, budget, share) for seed in range(seeds)]
        if fmean(run["loss"] for run in runs) > target:
            break
        shorter.append({"share": share, "runs": runs})
    found = {"tuning": tuning, "rivals": rivals, "ours": ours, "shorter": shorter, "target": target}
    return {**asdict(budget), **found}


def report(found: dict[str, Any], published: dict[str, Any] | None) -> None:
    groups = [("pretextlm", found["ours"]), (f"plain GPT, {found['tuning'][0]['learning_rate']:g}", found["rivals"])]
    groups += [(f"plain GPT, {run['learning_rate']:g}", [run]) for run in found["tuning"][1:]]
    if published:
        groups.append(("plain GPT, 2,000 steps as published", [published]))
    groups += [(f"pretextlm, {entry['share']:.0%} of the budget", entry["runs"]) for entry in found["shorter"]]
    rows = [_row(name, runs) for name, runs in groups]
    title = f"{found['seconds']} s, goal {GOALS[found['seconds']]}"
    if found["shorter"]:
        last, rivals = found["shorter"][-1]["runs"], found["rivals"]
        shares = [fmean(r[key] for r in rivals) / fmean(r[key] for r in last) for key in ("wall", "cpu")]
        title += (
            f"; the rival's {found['target']:.4f} in 1/{shares[0]:.1f} of its seconds, 1/{shares[1]:.1f} of CPU time"
        )
    output.show(title, ["side", "loss", "all seeds", "seconds", "CPU seconds", "load"], rows)


def _row(name: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    means = {key: fmean(run[key] for run in runs) for key in ("loss", "wall", "cpu", "load")}
    every = " ".join(f"{run['loss']:.4f}" for run in runs)
    return [name, f"{means['loss']:.4f}", every, f"{means['wall']:.0f}", f"{means['cpu']:.0f}", f"{means['load']:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="tinyshakespeare's input.txt, also .gz")
    parser.add_argument("--seconds", type=int, nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", action="store_true", help="budgets of work, on one thread")
    parser.add_argument("--compile", action="store_true", help="the rival is compiled, too")
    parser.add_argument("--published", action="store_true", help="also the rival's published 2,000 steps")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    split = {"tokenizer": "character", "sentinels": 0, "split_long": 0, "validation_tail": 0.1}
    store = store_of("shakespeare-char", [options.text], **split)
    threads = 1 if options.work else options.threads
    published = run_rival(store, 0, threads, **PUBLISHED) if options.published else None
    found = []
    for seconds in options.seconds:
        found.append(measure(store, Budget(seconds, options.work, threads, options.compile), options.seeds))
        report(found[-1], published)
        results = {"threads": threads, "published": published, "settings": found}
        output.write(options.json, "shakespeare", results)


if __name__ == "__main__":
    main()
