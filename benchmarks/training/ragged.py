"""Real text tokens per CPU second on documents of natural length, against transformers' padding.

    python -m benchmarks.training.ragged --data ../shared/data --json build/benchmarks/ragged.json

BoolQ passages (Wikipedia paragraphs) and IMDB reviews. The rival pads each batch to its longest document, which is
its collator's default; its length-grouped sampler, which is not, is measured too.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.training import output
from benchmarks.training.interleave import Side, ratio, take_turns
from benchmarks.training.peers import CLASSES, Format
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import store_of

CORPORA = {"boolq": ("tasks/boolq/train.jsonl.gz", "passage"), "imdb": ("tasks/imdb/train.jsonl.gz", "text")}
LENGTH, VOCABULARY, GOAL = 512, 8192, 2.0
WORKER = "benchmarks.training.ragged_worker"


def rivals(objective: str) -> list[Side]:
    """Padded batches, compiled for any length, in the formats that were fastest on full rows."""
    forms = [
        (Format("autocast", True, "sdpa", dynamic=True), False),
        (Format("autocast", True, "eager", dynamic=True), False),
        (Format("bf16", True, "eager", dynamic=True), False),
        (Format("bf16", True, "eager", dynamic=True), True),
    ]
    return [
        Side(
            f"{CLASSES[objective]}, {form.label(objective)}{', grouped by length' if grouped else ''}",
            "peer",
            {**asdict(form), "grouped": grouped},
        )
        for form, grouped in forms
    ]


def measure(corpus: str, path: Path, objective: str, steps: int, turns: int) -> dict[str, Any]:
    source, field = CORPORA[corpus]
    store = store_of(f"{corpus}-{VOCABULARY}", [str(path / source)], vocab_size=VOCABULARY, field=field)
    setting = Setting(objective, store, length=LENGTH)
    ours = Side("pretextlm", "ours", {})
    sides = [ours, *rivals(objective)]
    results = take_turns(sides, setting, steps, turns, WORKER)
    plain = [side.name for side in sides if side.side == "peer" and not side.options["grouped"]]
    best = max(plain, key=lambda name: results[name]["rate"])
    return {
        "corpus": corpus,
        "setting": setting.plain(),
        "results": results,
        "best": best,
        "ratio": ratio(results, ours.name, best),
        "goal": GOAL,
    }


def report(found: dict[str, Any]) -> None:
    rows = [
        [
            name,
            f"{r.get('filled', 1.0):.0%}",
            f"{r['rate']:,.0f}",
            f"{ratio(found['results'], name, found['best']):.2f}",
        ]
        for name, r in found["results"].items()
    ]
    title = f"{found['setting']['objective']} on {found['corpus']}, goal {GOAL}× of the rival's best that just pads"
    output.show(title, ["side", "text in batches", "text tokens per CPU second", "by the best rival"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="holds tasks/boolq and tasks/imdb")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=CORPORA)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for corpus in options.corpora:
        if not (options.data / CORPORA[corpus][0]).exists():
            print(f"{corpus} left out: {options.data / CORPORA[corpus][0]} is not there")
            continue
        for objective in options.objectives:
            found.append(measure(corpus, options.data, objective, options.steps, options.turns))
            report(found[-1])
            output.write(options.json, "ragged", {"settings": found})


if __name__ == "__main__":
    main()
