"""Training tokens per CPU second at one thread on full rows, against transformers at its best.

    python -m benchmarks.training.systems --json build/benchmarks/systems.json

Same layers, width, heads, feed-forward ratio, vocabulary, length and tokens per step; no dropout on either side. The
rival is first tried in every number format, eager and compiled; its fastest two then take turns with ours.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.training import output
from benchmarks.training.interleave import Side, ratio, take_turns
from benchmarks.training.peers import CLASSES, Format
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import speeches

GOALS = {"causal": 1.2, "masked": 1.3, "span_corruption": 1.5}
DEFAULTS = Format("fp32", compiled=False)
"""What transformers' Trainer does unless told otherwise, on a CPU."""


HOPELESS = 0.6
"""A number format below this share of the fastest one's rate is not tried further."""


def peer(form: Format, objective: str) -> Side:
    return Side(f"{CLASSES[objective]}, {form.label(objective)}", "peer", asdict(form))


def tryout(setting: Setting) -> list[tuple[Format, float]]:
    """The rival's formats and their tokens per CPU second, fastest first.

    Number formats that are much slower are left out early; of the others every combination of compiler and attention
    is tried, and T5's other feed-forward layer under the two best.
    """
    small = replace(setting, batch_tokens=setting.micro_tokens)
    rates: dict[Format, float] = {}

    def best() -> list[Format]:
        return sorted(rates, key=lambda form: -rates[form])

    def attempt(form: Format) -> None:
        side = peer(form, setting.objective)
        rates[form] = take_turns([side], small, 1, 3)[side.name]["rate"]
        print(f"  {side.name}: {rates[form]:,.0f} tokens per CPU second", flush=True)

    for numbers in ("fp32", "autocast", "bf16"):
        attempt(Format(numbers))
    for form in [form for form in best() if rates[form] > HOPELESS * rates[best()[0]]]:
        for compiled, attention in ((False, "eager"), (True, "sdpa"), (True, "eager")):
            attempt(replace(form, compiled=compiled, attention=attention))
    if setting.objective == "span_corruption":
        for form in best()[:2]:
            attempt(replace(form, feed_forward="relu"))
    return [(form, rates[form]) for form in best()]


def measure(setting: Setting, steps: int, turns: int) -> dict[str, Any]:
    """Ours with both optimizers and the rival's best two and default formats, in turns."""
    tried = tryout(setting)
    ours = [Side(f"pretextlm, {name}", "ours", {"optimizer": name}) for name in ("muon", "adamw")]
    chosen = [form for form, _ in tried[:2]]
    if DEFAULTS not in chosen:
        chosen.append(DEFAULTS)
    sides = ours + [peer(form, setting.objective) for form in chosen]
    results = take_turns(sides, setting, steps, turns)
    rivals = [side.name for side in sides if side.side == "peer"]
    best = max(rivals, key=lambda name: results[name]["rate"])
    return {
        "setting": setting.plain(),
        "tried": [{**asdict(form), "rate": rate} for form, rate in tried],
        "results": results,
        "best": best,
        "ratios": {side.name: ratio(results, side.name, best) for side in ours},
        "goal": GOALS[setting.objective],
    }


def report(found: dict[str, Any]) -> None:
    setting, best = found["setting"], found["best"]
    rows = [
        [name, f"{r['parameters'] / 1e6:.2f}", f"{r['rate']:,.0f}", f"{ratio(found['results'], name, best):.2f}"]
        for name, r in found["results"].items()
    ]
    title = f"{setting['objective']}, store {Path(setting['store']).name}, goal {found['goal']}× of the rival's best"
    output.show(title, ["side", "million weights", "tokens per CPU second", "by the best rival"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[8192, 4096])
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for vocabulary in options.vocabularies:
        for objective in options.objectives:
            found.append(measure(Setting(objective, speeches(vocabulary)), options.steps, options.turns))
            report(found[-1])
            output.write(options.json, "systems", {"settings": found})


if __name__ == "__main__":
    main()
