"""What the runs of `recipe` come to: the smallest of our budgets that beats a rival, and the table of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.training import output
from scipy.stats import ttest_ind

GOAL, LEVEL = 2.5, 0.05

Runs = Sequence[Mapping[str, Any]]


def against(rival: Runs, ours: Mapping[float, Runs]) -> dict[str, Any]:
    """Against one tuned rival.

    Returns:
        target: its mean loss; share: the smallest of our budgets whose loss is lower at the level of 5 %, None if
        there is none; p: of that test; ratio, low, high: its CPU seconds by ours, of the means and of any two runs.
    """
    target = fmean(run["loss"] for run in rival)
    found: dict[str, Any] = {"target": target, "share": None, "p": None, "ratio": 0.0, "low": 0.0, "high": 0.0}
    for share, runs in sorted(ours.items(), reverse=True):
        p = lower(runs, rival)
        if p is None or p > LEVEL:
            continue
        pairs = [theirs["cpu"] / mine["cpu"] for theirs in rival for mine in runs]
        ratio = fmean(run["cpu"] for run in rival) / fmean(run["cpu"] for run in runs)
        found |= {"share": share, "p": p, "ratio": ratio, "low": min(pairs), "high": max(pairs)}
    return found


def lower(runs: Runs, rival: Runs) -> float | None:
    """Welch's one-sided p that the first runs' losses are the lower ones; None where there are no two seeds of both."""
    if min(len(runs), len(rival)) < 2:
        return None
    test = ttest_ind(_losses(runs), _losses(rival), equal_var=False, alternative="less")
    return float(test.pvalue)


def report(found: Mapping[str, Any]) -> None:
    """Print the table."""
    rows: list[list[str]] = []
    for rival in found["rivals"]:
        rows += [[f"{rival['name']}, rate {run['learning_rate']:g}", *_cells([run])] for run in rival["tuning"]]
        rows.append([f"{rival['name']}, the best rate", *_cells(rival["runs"])])
    if found["defaults"]:
        rows.append(["transformers, Trainer's defaults", *_cells([found["defaults"]])])
    rows += [[f"pretextlm, {entry['share']:.3g} of its tokens", *_cells(entry["runs"])] for entry in found["ours"]]
    output.show(found["setting"]["objective"], ["side", "seeds", "tokens", "loss", "CPU s", "before"], rows)
    for rival in found["rivals"]:
        if rival["share"] is None:
            print(f"{rival['name']}: not beaten at any budget tried")
        else:
            span = f"{rival['low']:.2f} to {rival['high']:.2f}, p = {rival['p']:.1g}, goal {GOAL}"
            print(f"{rival['name']}: {rival['ratio']:.2f} times as fast ({span}) at {rival['share']:.3g} of its tokens")


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the standard deviation where there is one."""
    return f"{fmean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def _cells(runs: Runs) -> list[str]:
    seconds = [run["cpu"] for run in runs]
    before = fmean(run["first"] for run in runs)
    loss = spread(_losses(runs), 3)
    return [str(len(runs)), f"{runs[0]['tokens']:,.0f}", loss, spread(seconds, 1), f"{before:.0f}"]


def _losses(runs: Runs) -> list[float]:
    return [run["loss"] for run in runs]
