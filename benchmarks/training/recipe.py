"""Time to the tuned rival's final validation loss: the same store, order, masks and validation rows for both.

    python -m benchmarks.training.recipe --json build/benchmarks/recipe.json --charts docs/results

Each rival has its learning rate tuned at the full budget. Ours has one recipe, which is not tuned here, at smaller and
smaller budgets, each schedule ending at its own stop. The ratio is the rival's CPU seconds by ours at the smallest
budget whose loss is lower than the rival's by Welch's t-test over the seeds. What a token costs each side is measured
apart, in turns: losses are the same on a busy machine, seconds are not. Losses are nats per target, for the causal
model also bits per byte. Takes about two hours of one core.

Ten times the budget, against the strongest rival of the first alone, its learning rate looked for near the one that was
best there:

    python -m benchmarks.training.recipe --tokens 7e6 --near build/benchmarks/recipe.json

Runs are kept in build/benchmarks/recipe_runs.jsonl as they end, so that the command goes on where it was stopped;
delete the file to run all again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.training import output
from benchmarks.training.interleave import Side, take_turns
from benchmarks.training.recipe_chart import draw
from benchmarks.training.recipe_report import report, summary
from benchmarks.training.recipe_rivals import Rival, rivals
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import WORK, speeches

BATCH_TOKENS = 2048
"""Raw tokens of a step, for both sides: at these budgets many small steps serve both best."""
OURS: dict[str, dict[str, Any]] = {name: {"learning_rate": 0.01} for name in OBJECTIVES}
OURS["masked"] = {"learning_rate": 0.01, "objective": {"rate": 0.4}}
"""The quick start's recipe. The rival is trained at its usual 15 % of masks; both are validated at 15 %."""
SHARES = (0.5, 0.35, 0.25, 0.18, 0.125)
"""Budgets of ours, as shares of the rival's; the smaller ones only while the loss is still low enough."""
PRICE_TURNS = 5
KEPT = WORK / "recipe_runs.jsonl"


class Runner:
    """Trains one setting, each run in a process of its own; runs that are in the file KEPT are read from there."""

    def __init__(self, setting: Setting, tokens: float, seeds: int) -> None:
        self.setting, self.tokens, self.seeds = setting, tokens, seeds
        lines = KEPT.read_text().splitlines() if KEPT.exists() else []
        self.kept: dict[str, dict[str, Any]] = {line["order"]: line["run"] for line in map(json.loads, lines)}

    def ours(self, share: float, seed: int) -> dict[str, Any]:
        return self._run("ours", share * self.tokens, seed, OURS[self.setting.objective])

    def rival(self, rival: Rival, learning_rate: float, seed: int) -> dict[str, Any]:
        return self._run("peer", self.tokens, seed, rival.options(learning_rate))

    def _run(self, side: str, tokens: float, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
        fields = {"side": side, "setting": self.setting.plain(), "tokens": tokens, "seed": seed, "options": options}
        order = json.dumps(fields)
        if order not in self.kept:
            command = [sys.executable, "-m", "benchmarks.training.recipe_worker", order]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
            self.kept[order] = {"side": side, "tokens": tokens, "seed": seed, **options, **json.loads(done.stdout)}
            with KEPT.open("a") as file:
                file.write(json.dumps({"order": order, "run": self.kept[order]}) + "\n")
        run = self.kept[order]
        what = f"{self.setting.objective} {side} rate {options['learning_rate']:g} seed {seed}, {tokens:,.0f} tokens"
        print(f"  {what}: {run['loss']:.4f} in {run['cpu']:.0f} CPU seconds", flush=True)
        return run


def tune(runner: Runner, rival: Rival) -> list[dict[str, Any]]:
    """The rival at every learning rate; more of them while the best is at an edge. The best comes first."""
    runs = [runner.rival(rival, learning_rate, 0) for learning_rate in rival.rates]
    while True:
        runs.sort(key=lambda run: run["learning_rate"])
        best = min(runs, key=lambda run: run["loss"])
        if best is runs[0]:
            runs.append(runner.rival(rival, best["learning_rate"] / 2, 0))
        elif best is runs[-1]:
            runs.append(runner.rival(rival, best["learning_rate"] * 2, 0))
        else:
            return sorted(runs, key=lambda run: run["loss"])


def tune_near(runner: Runner, rival: Rival, learning_rate: float) -> list[dict[str, Any]]:
    """The rival at the rate that was best at a smaller budget, and at half of it; the better comes first."""
    runs = [runner.rival(rival, some, 0) for some in (learning_rate, learning_rate / 2)]
    return sorted(runs, key=lambda run: run["loss"])


def price(setting: Setting, chosen: Sequence[Rival]) -> dict[str, dict[str, Any]]:
    """Tokens per CPU second of ours ("pretextlm") and of the rivals by name, in turns of eight steps."""
    sides = [Side("pretextlm", "ours", OURS[setting.objective])]
    sides += [Side(rival.form.name(setting.objective), "peer", asdict(rival.form)) for rival in chosen]
    return take_turns(sides, setting, 8, PRICE_TURNS)


def measure(runner: Runner, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Rivals tuned, then at other seeds, ours at smaller and smaller budgets, and what a token costs each.

    Args:
        known: what this gave for a smaller budget; only the strongest rival there is raced.
    """
    setting, seeds = runner.setting, range(runner.seeds)
    chosen = rivals(setting.objective)
    if known:
        strongest = min(known["rivals"], key=lambda found: found["target"])
        chosen = [rival for rival in chosen if rival.form.name(setting.objective) == strongest["name"]]
        tunings = [tune_near(runner, chosen[0], strongest["tuning"][0]["learning_rate"])]
    else:
        tunings = [tune(runner, rival) for rival in chosen]
    finals = [
        [runner.rival(rival, tuning[0]["learning_rate"], seed) for seed in seeds]
        for rival, tuning in zip(chosen, tunings, strict=True)
    ]
    highest = max(fmean(run["loss"] for run in runs) for runs in finals)
    ours: dict[float, list[dict[str, Any]]] = {}
    for share in SHARES:
        ours[share] = [runner.ours(share, seed) for seed in seeds]
        if fmean(run["loss"] for run in ours[share]) > highest:
            break
    names = [rival.form.name(setting.objective) for rival in chosen]
    named = dict(zip(names, tunings, strict=True))
    return summary(setting, runner.tokens, named, finals, ours, price(setting, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--tokens", type=float, default=7e5, help="the rival's budget")
    parser.add_argument("--near", type=Path, help="file of a smaller budget's results")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--charts", type=Path, help="directory for one picture for each objective")
    options = parser.parse_args()
    smaller = json.loads(options.near.read_text())["settings"] if options.near else []
    known = {found["setting"]["objective"]: found for found in smaller}
    found = []
    for objective in options.objectives:
        setting = Setting(objective, speeches(4096), layers=options.layers, batch_tokens=BATCH_TOKENS)
        found.append(measure(Runner(setting, options.tokens, options.seeds), known.get(objective)))
        report(found[-1])
        output.write(options.json, "recipe", {"settings": found})
        if options.charts:
            (options.charts / f"recipe_{objective}.svg").write_text(draw(found[-1]), encoding="utf-8")


if __name__ == "__main__":
    main()
