"""Ours and the rivals on the same rows, in turns: a plain GPT compiled whole; transformers' GPT-2, BERT and T5."""

from __future__ import annotations

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from statistics import median
from typing import Any

from benchmarks.gpu.isolation import LeftOut, item
from benchmarks.gpu.measures.common import setting_of
from benchmarks.training.decoders import NANOGPT
from benchmarks.training.interleave import Side, Worker
from benchmarks.training.peers import Format

SIDE = "benchmarks.gpu.measures.side"
STEPS, TURNS = {"cuda": 5, "cpu": 1}, {"cuda": 5, "cpu": 1}
CASES = ["GPT 124M, 16k x 1", "BERT-base", "T5-base"]


def sides(device: str, objective: str) -> list[Side]:
    """Ours with both optimizers; the rivals in both number formats, compiled on a GPU."""
    found = [Side(f"pretextlm, {name}", "ours", {"device": device, "optimizer": name}) for name in ("muon", "adamw")]
    compiled = Format("autocast", compiled=device == "cuda")
    forms = [compiled, replace(compiled, numbers="bf16")]
    if objective == "causal":
        forms.insert(0, replace(compiled, model=NANOGPT))
    return found + [Side(form.label(objective), "rival", {"device": device, **asdict(form)}) for form in forms]


@item("4 rivals", seconds=200, alone=True, cases=CASES)
def in_turns(device: str, case: str) -> dict[str, Any]:
    if not importlib.util.find_spec("transformers"):
        raise LeftOut("transformers is not installed")
    setting = setting_of(device, case)
    chosen = sides(device, setting.objective)
    rates: dict[str, list[float]] = {side.name: [] for side in chosen}
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        workers = {side.name: stack.enter_context(Worker(side, setting, STEPS[device], SIDE)) for side in chosen}
        with ThreadPoolExecutor(len(workers)) as pool:  # all compile at once
            list(pool.map(Worker.turn, workers.values()))
        for _ in range(TURNS[device]):
            for name, worker in workers.items():
                took = worker.turn()
                rates[name].append(took["tokens"] / took["wall"])
                memory[name] = took["memory"]
    best = max((name for name in rates if not name.startswith("pretextlm")), key=lambda name: median(rates[name]))
    return {
        name: {
            "tokens per second": round(median(found)),
            "by the best rival": round(median(a / b for a, b in zip(found, rates[best], strict=True)), 3),
            "GiB": round(memory[name] / 2**30, 2),
        }
        for name, found in rates.items()
    }
