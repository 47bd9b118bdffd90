"""Real text tokens per CPU second on documents of natural length, against what transformers does with them.

    python -m benchmarks.training.ragged --data DIR --json build/benchmarks/ragged.json

BoolQ passages (Wikipedia paragraphs) and IMDB reviews. The rival pads each batch to its longest document, which is
its collator's default. What it offers besides is measured, too: its length-grouped sampler, and for GPT-2, the only one
of the three whose mask knows where a document begins, documents flattened into one row. Takes about 20 minutes of one
core for each corpus.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.training import output
from benchmarks.training.interleave import Side, ratio, take_turns
from benchmarks.training.peers import Format
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import store_of

CORPORA = {"boolq": ("tasks/boolq/train.jsonl.gz", "passage"), "imdb": ("tasks/imdb/train.jsonl.gz", "text")}
LENGTH, VOCABULARY, GOAL = 512, 8192, 2.0
WORKER = "benchmarks.training.ragged_worker"


def rivals(objective: str) -> list[Side]:
    """Compiled for any length, in the formats that were fastest on full rows."""
    forms = [Format(numbers, True, "eager", dynamic=True) for numbers in ("autocast", "bf16")]
    sides = [(form, layout) for layout in ("padded", "grouped by length") for form in forms]
    if objective == "causal":
        sides.append((replace(forms[0], attention="sdpa"), "flattened"))
    return [
        Side(f"{form.label(objective)}, {layout}", "peer", {**asdict(form), "layout": layout}) for form, layout in sides
    ]


def measure(corpus: str, path: Path, objective: str, steps: int, turns: int) -> dict[str, Any]:
    source, field = CORPORA[corpus]
    store = store_of(f"{corpus}-{VOCABULARY}", [str(path / source)], vocab_size=VOCABULARY, field=field)
    setting = Setting(objective, store, length=LENGTH)
    ours = Side("pretextlm, Muon", "ours", {})
    sides = [ours, *rivals(objective)]
    results = take_turns(sides, setting, steps, turns, WORKER)
    best = {
        layout: max(
            (side.name for side in sides if side.options.get("layout") == layout),
            key=lambda name: results[name]["rate"],
        )
        for layout in dict.fromkeys(side.options["layout"] for side in sides[1:])
    }
    return {
        "corpus": corpus,
        "setting": setting.plain(),
        "results": results,
        "best": best,
        "ratios": {layout: ratio(results, ours.name, name) for layout, name in best.items()},
        "goal": GOAL,
    }


def report(found: dict[str, Any]) -> None:
    rows = [
        [
            name,
            f"{r.get('filled', 1.0):.0%}",
            f"{r['rate']:,.0f}",
            f"{ratio(found['results'], name, found['best']['padded']):.2f}",
        ]
        for name, r in found["results"].items()
    ]
    title = f"{found['setting']['objective']} on {found['corpus']}, goal {GOAL}× of the best that pads"
    output.show(title, ["side", "text in batches", "text tokens per CPU second", "by the best that pads"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a directory that holds tasks/boolq and tasks/imdb")
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
