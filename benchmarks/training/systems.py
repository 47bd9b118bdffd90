"""Training tokens per CPU second, share of the machine's peak and memory at one thread on full rows.

    python -m benchmarks.training.systems --json build/benchmarks/systems.json

Same layers, width, heads, feed-forward ratio, vocabulary, length and tokens per step; no dropout on either side. Rivals
are transformers' classes in a lean loop, in the two formats that were fastest; its Trainer at its defaults and at its
best documented settings; for the decoder a plain GPT in nanoGPT's style and litgpt's; for span corruption nanoT5's
optimizer. `--search` looks for the two fastest formats anew. All sides take turns. Takes about 20 minutes of one core.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.training import decoders, output
from benchmarks.training.interleave import Side, ratio, take_turns
from benchmarks.training.peers import Format
from benchmarks.training.setting import OBJECTIVES, Setting
from benchmarks.training.stores import speeches

from pretextlm.data.store import Store
from pretextlm.training.peak_flops import measure as measure_peak
from pretextlm.training.plan import make_plan
from pretextlm.training.recipe import Recipe

GOALS = {"causal": 1.2, "masked": 1.3, "span_corruption": 1.5}
AUTOCAST, HALF = (Format(numbers, compiled=True, attention="eager") for numbers in ("autocast", "bf16"))
FASTEST = {
    "causal": (HALF, AUTOCAST),
    "masked": (AUTOCAST, Format("bf16", attention="eager")),
    "span_corruption": (HALF, replace(AUTOCAST, attention="sdpa")),
}
"""What `search` finds on a CPU with AMX tiles."""
HOPELESS = 0.6
"""A number format below this share of the fastest one's rate is not tried further."""
OURS: dict[str, dict[str, Any]] = {
    "pretextlm, Muon": {"optimizer": "muon"},
    "pretextlm, AdamW": {"optimizer": "adamw"},
    "pretextlm, Muon, blocks computed twice": {"optimizer": "muon", "gradient_checkpointing": "blocks"},
}
CPU = torch.device("cpu")


def peer(form: Format, objective: str) -> Side:
    return Side(form.label(objective), "peer", asdict(form))


def rivals(objective: str, fastest: list[Format]) -> list[Side]:
    """All of them, the lean loops first."""
    forms = list(fastest)
    if objective == "causal":
        for name in decoders.there():
            forms += [Format("autocast", compiled, model=name) for compiled in (False, True)]
            forms.append(Format("bf16", True, model=name))
    if objective == "span_corruption":
        forms.append(replace(AUTOCAST, optimizer="scaled"))
    sides = [peer(form, objective) for form in forms]
    if not importlib.util.find_spec("accelerate"):
        print("transformers' Trainer is left out: it needs the extra `bench`")
        return sides
    trainers = {"transformers' Trainer, its defaults": False, "transformers' Trainer, its best settings": True}
    return sides + [Side(name, "trainer", {"best": best}) for name, best in trainers.items()]


def search(setting: Setting) -> list[tuple[Format, float]]:
    """transformers' formats and their tokens per CPU second, fastest first.

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


def flops_per_token(setting: Setting) -> float:
    """Operations that training this shape on a token takes: the same for all sides, by one formula."""
    store = Store.open(Path(setting.store))
    plan = make_plan(Recipe.load(setting.recipe(budget_steps=1)).with_vocabulary(store.vocabulary), store, CPU)
    return plan.flops_per_row / plan.tokens_per_row


def measure(setting: Setting, steps: int, turns: int, searching: bool) -> dict[str, Any]:
    """Ours and the rivals in turns."""
    tried = search(setting) if searching else []
    fastest = [form for form, _ in tried[:2]] or list(FASTEST[setting.objective])
    ours = [Side(name, "ours", training) for name, training in OURS.items()]
    sides = ours + rivals(setting.objective, fastest)
    results = take_turns(sides, setting, steps, turns)
    names = [side.name for side in sides if side.side != "ours"]
    best = max(names, key=lambda name: results[name]["rate"])
    torch.set_num_threads(1)
    peak = max(measure_peak(CPU, torch.bfloat16) for _ in range(5))
    flops = flops_per_token(setting)
    for found in results.values():
        found["mfu"] = found["rate"] * flops / peak
    return {
        "setting": setting.plain(),
        "tried": [{**asdict(form), "rate": rate} for form, rate in tried],
        "flops_per_token": flops,
        "peak": peak,
        "results": results,
        "best": best,
        "ratios": {side.name: ratio(results, side.name, best) for side in ours},
        "goal": GOALS[setting.objective],
    }


def report(found: dict[str, Any]) -> None:
    setting, best = found["setting"], found["best"]
    rows = [
        [
            name,
            f"{r['parameters'] / 1e6:.2f}",
            f"{r['rate']:,.0f}",
            f"{ratio(found['results'], name, best):.2f}",
            f"{r['mfu']:.0%}",
            f"{r['memory'] / 2**20:,.0f}",
        ]
        for name, r in found["results"].items()
    ]
    title = f"{setting['objective']}, store {Path(setting['store']).name}, goal {found['goal']}× of the rivals' best"
    columns = ["side", "million weights", "tokens per CPU second", "by the best rival", "of the peak", "MiB"]
    output.show(title, columns, rows)
    print(f"peak: {found['peak'] / 1e9:,.0f} GFLOP/s in bf16; a token: {found['flops_per_token'] / 1e6:.1f} MFLOP")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objectives", nargs="+", default=OBJECTIVES, choices=OBJECTIVES)
    parser.add_argument("--vocabularies", nargs="+", type=int, default=[8192])
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--search", action="store_true", help="look for transformers' fastest formats first")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = []
    for vocabulary in options.vocabularies:
        for objective in options.objectives:
            setting = Setting(objective, speeches(vocabulary))
            found.append(measure(setting, options.steps, options.turns, options.search))
            report(found[-1])
            output.write(options.json, "systems", {"settings": found})


if __name__ == "__main__":
    main()
