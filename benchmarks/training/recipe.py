"""Time to the tuned rival's final validation loss: the same store, order, masks and validation rows for both.

    python -m benchmarks.training.recipe --json build/benchmarks/recipe.json --charts docs/results

Each rival has its learning rate tuned at the full budget. Ours has one recipe, which is not tuned here, at smaller and
smaller budgets, each schedule ending at its own stop. The ratio is the rival's CPU seconds by ours at the smallest
budget whose loss is lower than the rival's by Welch's t-test over the seeds. What a token costs each side is measured
apart, in turns: losses are the same on a busy machine, seconds are not. Losses are nats per target, for the causal
model also bits per byte. Takes about an hour of one core.
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
from benchmarks.training.stores import speeches

BATCH_TOKENS = 2048
"""Raw tokens of a step, for both sides: at these budgets many small steps serve both best."""
OURS: dict[str, dict[str, Any]] = {name: {"learning_rate": 0.01} for name in OBJECTIVES}
OURS["masked"] = {"learning_rate": 0.01, "objective": {"rate": 0.4}}
"""The quick start's recipe. The rival is trained at its usual 15 % of masks; both are validated at 15 %."""
SHARES = (0.5, 0.35, 0.25, 0.18, 0.125)
"""Budgets of ours, as shares of the rival's; the smaller ones only while the loss is still low enough."""
PRICE_TURNS = 5


def train(side: str, setting: Setting, tokens: float, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """One run in a process of its own."""
    order = {"side": side, "setting": setting.plain(), "tokens": tokens, "seed": seed, "options": dict(options)}
    command = [sys.executable, "-m", "benchmarks.training.recipe_worker", json.dumps(order)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found = {"side": side, "tokens": tokens, "seed": seed, **options, **json.loads(done.stdout)}
    what = f"{setting.objective} {side} rate {options['learning_rate']:g} seed {seed}, {tokens:,.0f} tokens"
    print(f"  {what}: {found['loss']:.4f} in {found['cpu']:.0f} CPU seconds", flush=True)
    return found


def tune(rival: Rival, setting: Setting, tokens: float) -> list[dict[str, Any]]:
    """The rival at every learning rate; more of them while the best is at an edge. The best comes first."""

    def attempt(learning_rate: float) -> dict[str, Any]:
        return train("peer", setting, tokens, 0, rival.options(learning_rate))

    runs = [attempt(learning_rate) for learning_rate in rival.rates]
    while True:
        runs.sort(key=lambda run: run["learning_rate"])
        best = min(runs, key=lambda run: run["loss"])
        if best is runs[0]:
            runs.append(attempt(best["learning_rate"] / 2))
        elif best is runs[-1]:
            runs.append(attempt(best["learning_rate"] * 2))
        else:
            return sorted(runs, key=lambda run: run["loss"])


def price(setting: Setting, chosen: Sequence[Rival]) -> dict[str, dict[str, Any]]:
    """Tokens per CPU second of ours ("pretextlm") and of the rivals by name, in turns of eight steps."""
    sides = [Side("pretextlm", "ours", OURS[setting.objective])]
    sides += [Side(rival.form.name(setting.objective), "peer", asdict(rival.form)) for rival in chosen]
    return take_turns(sides, setting, 8, PRICE_TURNS)


def measure(setting: Setting, tokens: float, seeds: int) -> dict[str, Any]:
    """Rivals tuned, then at other seeds, ours at smaller and smaller budgets, and what a token costs each."""

    def mine(share: float, seed: int) -> dict[str, Any]:
        return train("ours", setting, share * tokens, seed, OURS[setting.objective])

    chosen = rivals(setting.objective)
    tunings = [tune(rival, setting, tokens) for rival in chosen]
    finals = [[tuning[0]] for tuning in tunings]
    for rival, runs in zip(chosen, finals, strict=True):
        runs += [
            train("peer", setting, tokens, seed, rival.options(runs[0]["learning_rate"])) for seed in range(1, seeds)
        ]
    highest = max(fmean(run["loss"] for run in runs) for runs in finals)
    ours: dict[float, list[dict[str, Any]]] = {}
    for share in SHARES:
        ours[share] = [mine(share, seed) for seed in range(seeds)]
        if fmean(run["loss"] for run in ours[share]) > highest:
            break
    names = [rival.form.name(setting.objective) for rival in chosen]
    return summary(setting, tokens, dict(zip(names, tunings, strict=True)), finals, ours, price(setting, chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--tokens", type=float, default=7e5, help="the rival's budget")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--charts", type=Path, help="directory for one picture for each objective")
    options = parser.parse_args()
    found = []
    for objective in options.objectives:
        setting = Setting(objective, speeches(4096), layers=options.layers, batch_tokens=BATCH_TOKENS)
        found.append(measure(setting, options.tokens, options.seeds))
        report(found[-1])
        output.write(options.json, "recipe", {"settings": found})
        if options.charts:
            (options.charts / f"recipe_{objective}.svg").write_text(draw(found[-1]), encoding="utf-8")


if __name__ == "__main__":
    main()
