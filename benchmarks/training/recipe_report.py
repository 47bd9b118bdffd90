"""What the runs of `recipe` come to: the smallest of our budgets that beats a rival, and the table of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.training import output
from benchmarks.training.interleave import ratio
from benchmarks.training.setting import Setting
from scipy.stats import ttest_ind

GOAL, LEVEL = 2.5, 0.05
OURS = "pretextlm"

Runs = Sequence[Mapping[str, Any]]


def summary(
    setting: Setting,
    tokens: float,
    tunings: Mapping[str, Runs],
    finals: Sequence[Runs],
    ours: Mapping[float, Runs],
    prices: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """All that is written.

    Args:
        tokens: the rivals' budget.
        tunings: by rival, its runs at all learning rates; finals: its runs at the best one, a seed each.
        ours: our runs by share of the budget.
        prices: tokens per CPU second by side.
    """
    found = [
        {
            "name": name,
            "tuning": tuning,
            "runs": runs,
            "rate": prices[name]["rate"],
            **against(name, runs, ours, prices),
        }
        for (name, tuning), runs in zip(tunings.items(), finals, strict=True)
    ]
    budgets = [{"share": share, "runs": runs} for share, runs in ours.items()]
    return {"setting": setting.plain(), "tokens": tokens, "rivals": found, "ours": budgets, "prices": prices}


def against(
    name: str, rival: Runs, ours: Mapping[float, Runs], prices: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Against one tuned rival.

    Returns:
        target: its mean loss; share: the smallest of our budgets whose loss is lower at the level of 5 %, None if
        there is none; p: of that test; ratio, low, high: its CPU seconds by ours, in the middle turn and over all.
    """
    target = fmean(_losses(rival))
    found: dict[str, Any] = {"target": target, "share": None, "p": None, "ratio": 0.0, "low": 0.0, "high": 0.0}
    turns = [mine / theirs for mine, theirs in zip(prices[OURS]["rates"], prices[name]["rates"], strict=True)]
    for share, runs in sorted(ours.items(), reverse=True):
        p = lower(runs, rival)
        if p is not None and p <= LEVEL:
            low, high = min(turns) / share, max(turns) / share
            found |= {"share": share, "p": p, "ratio": ratio(prices, OURS, name) / share, "low": low, "high": high}
    return found


def lower(runs: Runs, rival: Runs) -> float | None:
    """Welch's one-sided p that the first runs' losses are the lower ones; None where there are no two seeds of both."""
    if min(len(runs), len(rival)) < 2:
        return None
    return float(ttest_ind(_losses(runs), _losses(rival), equal_var=False, alternative="less").pvalue)


def report(found: Mapping[str, Any]) -> None:
    """Print the table."""
    tokens, pace = found["tokens"], found["prices"][OURS]["rate"]
    rows: list[list[str]] = []
    for rival in found["rivals"]:
        some = [(f"rate {run['learning_rate']:g}", [run]) for run in rival["tuning"]] + [("the best", rival["runs"])]
        rows += [[f"{rival['name']}, {what}", *_cells(runs, tokens, rival["rate"])] for what, runs in some]
    rows += [[OURS, *_cells(entry["runs"], entry["share"] * tokens, pace)] for entry in found["ours"]]
    output.show(found["setting"]["objective"], ["side", "seeds", "tokens", "loss", "CPU seconds"], rows)
    for rival in found["rivals"]:
        if rival["share"] is None:
            print(f"{rival['name']}: not beaten at any budget tried")
        else:
            span = f"{rival['low']:.2f} to {rival['high']:.2f}, p = {rival['p']:.1g}, goal {GOAL}"
            print(f"{rival['name']}: {rival['ratio']:.2f} times as fast ({span}) at {rival['share']:.3g} of its tokens")


def _cells(runs: Runs, tokens: float, rate: float) -> list[str]:
    losses = _losses(runs)
    spread = f" ± {stdev(losses):.3f}" if len(losses) > 1 else ""
    return [str(len(runs)), f"{tokens:,.0f}", f"{fmean(losses):.3f}{spread}", f"{tokens / rate:.0f}"]


def _losses(runs: Runs) -> list[float]:
    return [run["loss"] for run in runs]
