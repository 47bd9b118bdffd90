"""Runs the benchmark: see the package's docstring."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import benchmarks.objectives as benchmark
import torch
from benchmarks.objectives.cases import CASES, Case
from benchmarks.objectives.text import Text
from benchmarks.objectives.timing import Rate, Sample, Work, samples, take_turns
from benchmarks.training.output import machine
from rich.console import Console
from rich.table import Table

from pretextlm.objectives.registry import OBJECTIVES, build

Result = dict[str, Any]


def measure(case: Case, text: Text, length: int, rows: int, turns: int) -> Iterator[Result]:
    """A result for each variant."""
    objective = build(case.name, case.options)
    for sample in samples(objective, text, length, rows, turns, case.spelled, case.parts):
        yield _measured(case, sample, turns)


def _measured(case: Case, sample: Sample, turns: int) -> Result:
    peers = [peer for of in case.peers for peer in of(sample)]
    others = [partial(_do, peer.work) for peer in peers]
    own, whole, *theirs = take_turns([partial(_do, sample.collate), sample.read_and_collate, *others], turns)
    result = {"corrupt": Rate.of(sample.tokens, own), "read": Rate.of(sample.tokens, whole), "all": None}
    if sample.once:
        (once,) = take_turns([partial(_do, sample.index)], min(turns, 3))
        share = min(once) * len(sample.rows) / sample.once
        result["all"] = Rate.of(sample.tokens, [seconds + share for seconds in whole])
    judged = result["all" if case.all_counts else "corrupt"]
    assert judged is not None
    variant = "" if sample.variant.name == "main" else sample.variant.name
    return {
        "objective": case.title,
        "variant": variant,
        **{name: rate and vars(rate) for name, rate in result.items()},
        "target": case.target,
        "judged": judged.best,
        "met": None if case.target is None else judged.best >= case.target,
        "peers": [
            {"peer": peer.label, **vars(rate), "ratio": judged.best / rate.best}
            for peer, seconds in zip(peers, theirs, strict=True)
            for rate in [Rate.of(peer.tokens, seconds)]
        ],
    }


def _do(work: Work, turn: int) -> None:
    work()


def lines(result: Result) -> Iterator[list[str]]:
    """A line of the table for each peer, the fastest first."""
    whole = result["all"]
    own = [
        " ".join(filter(None, [result["objective"], result["variant"] and f"[{result['variant']}]"])),
        _number(result["corrupt"]["best"]),
        _number(result["read"]["best"]),
        _number(whole["best"]) if whole else "",
        _spread(result["corrupt"]),
        "" if result["target"] is None else f"{'met' if result['met'] else 'MISSED'} {result['target']:.0f}",
    ]
    peers = sorted(result["peers"], key=lambda peer: -peer["best"])
    for peer in peers or [None]:
        theirs = [peer["peer"], _number(peer["best"]), f"{peer['ratio']:.1f}×", _spread(peer)] if peer else [""] * 4
        yield own + theirs
        own = [""] * len(own)


def _number(rate: float) -> str:
    return f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"


def _spread(rate: dict[str, float]) -> str:
    return f"{rate['spread']:.0%}"


def show(results: list[Result], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("objective", "corrupt", "+ read", "all", "spread", "target", "peer", "its", "ratio", "spread"):
        table.add_column(heading, justify="left" if heading in ("objective", "peer") else "right", overflow="fold")
    for result in results:
        for line in lines(result):
            table.add_row(*line)
    Console(width=170).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.objectives",
        description=benchmark.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", metavar="NAME", help="an objective; may be given again")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--rows", type=int, default=1024, help="rows at once")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="fewer turns and rows, and less text: rough figures")
    parser.add_argument("--text", default="", metavar="SOURCE", help="real text, as for `pretextlm data prepare`")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    turns, rows = (min(given.turns, 3), min(given.rows, 256)) if given.quick else (given.turns, given.rows)
    text = Text(*((4_000_000, 2_000_000) if given.quick else (30_000_000, 10_000_000)), given.text)
    if unknown := set(given.only or ()) - set(OBJECTIVES):
        parser.error(f"there is no objective {sorted(unknown)[0]}; there are: {', '.join(OBJECTIVES)}")
    names = given.only or list(OBJECTIVES)
    results: list[Result] = []
    for name in names:
        for case in [case for case in CASES if case.name == name]:
            results += measure(case, text, given.length, rows, turns)
            print(case.title, file=sys.stderr, flush=True)
    title = f"Million tokens of text a second on one core; {rows} rows of {given.length}, best of {turns} turns"
    show(results, title)
    missed = [f"{r['objective']} {r['variant']}".strip() for r in results if r["met"] is False]
    print(f"Targets missed: {', '.join(missed) or 'none'}")
    without = sorted(set(names) - {case.name for case in CASES})
    if without:
        print(f"Not measured: {', '.join(without)}")
    if given.json:
        settings = {"rows": rows, "length": given.length, "turns": turns}
        plain = {"machine": machine() | {"numpy": version("numpy")}, "settings": settings, "results": results}
        given.json.parent.mkdir(parents=True, exist_ok=True)
        temporary = given.json.with_name(given.json.name + ".part")
        temporary.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, given.json)


if __name__ == "__main__":
    main()
