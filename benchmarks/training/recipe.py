"""Time to the tuned rival's final validation loss: the same store, order, masks and validation rows for both.

    python -m benchmarks.training.recipe --json build/benchmarks/recipe.json

The rival is transformers' class with fused AdamW, warm-up and a falling schedule, its learning rate tuned at the full
budget, its number format the fastest of `systems` with weights in fp32. Ours has one recipe, which is not tuned here,
at smaller and smaller budgets, each schedule ending at its own stop; the ratio is the rival's CPU seconds by ours at
the smallest budget whose loss is no higher. Losses are nats per target, for the causal model also bits per byte.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.training import output
from benchmarks.training.peers import CLASSES, Format
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import speeches

BEST = dict.fromkeys(OBJECTIVES, Format("autocast", compiled=True, attention="eager"))
"""The rival's fastest format that keeps its weights in fp32: in bf16 AdamW's small updates are rounded away."""
RATES = {"causal": (1e-3, 2e-3, 4e-3), "masked": (5e-4, 1e-3, 2e-3), "span_corruption": (1e-3, 3e-3, 1e-2)}
BATCH_TOKENS = 2048
"""Raw tokens of a step, for both sides: at these budgets many small steps serve both best."""
OURS: dict[str, dict[str, Any]] = {name: {"learning_rate": 0.01} for name in OBJECTIVES}
OURS["masked"] = {"learning_rate": 0.01, "objective": {"rate": 0.4}}
"""The quick start's recipe. The rival is trained at its usual 15 % of masks; both are validated at 15 %."""
SHARES = (0.5, 0.35, 0.25)
GOAL = 2.5


def train(side: str, setting: Setting, tokens: float, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """One run in a process of its own."""
    order = {"side": side, "setting": setting.plain(), "tokens": tokens, "seed": seed, "options": dict(options)}
    command = [sys.executable, "-m", "benchmarks.training.recipe_worker", json.dumps(order)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found = {"side": side, "tokens": tokens, "seed": seed, **options, **json.loads(done.stdout)}
    cost = f"{found['cpu']:.0f} CPU seconds and {found['first']:.0f} before"
    print(f"  {setting.objective} {side} {dict(options)} {tokens:,.0f} tokens: {found['loss']:.4f}, {cost}", flush=True)
    return found


def tune(setting: Setting, tokens: float) -> list[dict[str, Any]]:
    """The rival at every learning rate; more of them while the best is at an edge. The best comes first."""
    form = asdict(BEST[setting.objective])

    def attempt(learning_rate: float) -> dict[str, Any]:
        options = {"learning_rate": learning_rate, "schedule": "cosine", "form": form}
        return train("peer", setting, tokens, 0, options)

    runs = [attempt(learning_rate) for learning_rate in RATES[setting.objective]]
    while True:
        runs.sort(key=lambda run: run["learning_rate"])
        best = min(runs, key=lambda run: run["loss"])
        if best is runs[0]:
            runs.append(attempt(best["learning_rate"] / 2))
        elif best is runs[-1]:
            runs.append(attempt(best["learning_rate"] * 2))
        else:
            return sorted(runs, key=lambda run: run["loss"])


def defaults(setting: Setting, tokens: float) -> dict[str, Any]:
    """What transformers' Trainer does unless told otherwise: fp32, not compiled, 5e-5, linear to zero."""
    form = asdict(Format(feed_forward=BEST[setting.objective].feed_forward))
    return train("peer", setting, tokens, 0, {"learning_rate": 5e-5, "schedule": "linear", "form": form})


def measure(setting: Setting, tokens: float, seeds: int, with_defaults: bool) -> dict[str, Any]:
    tuned = tune(setting, tokens)
    best = tuned[0]
    chosen = {key: best[key] for key in ("learning_rate", "schedule", "form")}
    rivals = [best, *(train("peer", setting, tokens, seed, chosen) for seed in range(1, seeds))]
    target = sum(run["loss"] for run in rivals) / len(rivals)
    ours = []
    for share in SHARES:
        runs = [train("ours", setting, share * tokens, seed, OURS[setting.objective]) for seed in range(seeds)]
        ours.append({"share": share, "runs": runs, "loss": sum(run["loss"] for run in runs) / seeds})
        if ours[-1]["loss"] > target:
            break
    reached = [entry for entry in ours if entry["loss"] <= target]
    cost = sum(run["cpu"] for run in rivals) / len(rivals)
    mine = sum(run["cpu"] for run in reached[-1]["runs"]) / seeds if reached else math.inf
    return {
        "setting": setting.plain(),
        "tokens": tokens,
        "tuning": tuned,
        "rivals": rivals,
        "defaults": defaults(setting, tokens) if with_defaults else None,
        "ours": ours,
        "target": target,
        "ratio": cost / mine,
        "goal": GOAL,
    }


def report(found: dict[str, Any]) -> None:
    name = CLASSES[found["setting"]["objective"]]
    runs = [(f"{name}, {run['learning_rate']:g}", run) for run in found["tuning"]]
    if found["defaults"]:
        runs.append((f"{name}, Trainer's defaults", found["defaults"]))
    runs += [("pretextlm", run) for entry in found["ours"] for run in entry["runs"]]
    rows = [[label, *_cells(run)] for label, run in runs]
    title = f"{found['setting']['objective']}: {found['ratio']:.2f}× to loss {found['target']:.4f}, goal {GOAL}×"
    output.show(title, ["side", "seed", "tokens", "loss", "CPU seconds", "before the first step's end"], rows)


def _cells(run: Mapping[str, Any]) -> list[str]:
    return [str(run["seed"]), f"{run['tokens']:,.0f}", f"{run['loss']:.4f}", f"{run['cpu']:.0f}", f"{run['first']:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--tokens", type=float, default=1e6, help="the rival's budget")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the final pair")
    parser.add_argument("--defaults", action="store_true", help="also run the Trainer's defaults")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for objective in options.objectives:
        setting = Setting(objective, speeches(4096), layers=options.layers, batch_tokens=BATCH_TOKENS)
        found.append(measure(setting, options.tokens, options.seeds, options.defaults))
        report(found[-1])
        output.write(options.json, "recipe", {"settings": found})


if __name__ == "__main__":
    main()
