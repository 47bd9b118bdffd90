"""Evaluating, predicting and writing on the device give what a CPU gives in fp32."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from benchmarks.gpu.checks.common import assert_near, exact_products, store, tables, train
from benchmarks.gpu.isolation import item

from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.generate import generate

SECTION = "9 inference"
PROMPTS = ["The river carries", "Nobody", "Every child remembers the letters"]


def numbers(values: Any) -> list[float]:
    """All numbers in nested results, in order; times and rates are left out by their names."""
    if isinstance(values, dict):
        timed = ("seconds", "per_second", "time")
        return [n for key, value in values.items() if not str(key).endswith(timed) for n in numbers(value)]
    if isinstance(values, list | tuple):
        return [n for value in values for n in numbers(value)]
    return [float(values)] if isinstance(values, int | float) and not isinstance(values, bool) else []


def trained(objective: str) -> str:
    return str(train(tables("cpu", store(), objective, budget_steps=20, learning_rate=3e-3)).directory)


@item(SECTION, cases=["causal", "masked", "span_corruption"], seconds=240)
def evaluation_is_the_cpu_s(device: str, case: str) -> str:
    exact_products()
    run = trained(case)
    found, wanted = (numbers(evaluate(run, documents=8, device=where)) for where in (device, "cpu"))
    error = assert_near(torch.tensor(found), torch.tensor(wanted), 1e-3, "measures")
    return f"{len(wanted)} numbers, relative error {error:.1e}"


@item(SECTION, cases=["greedy", "beams", "sampled"])
def texts_are_the_cpu_s(device: str, case: str) -> str:
    exact_products()
    run = trained("causal")
    settings: dict[str, Any] = {
        "greedy": {"temperature": 0.0},
        "beams": {"temperature": 0.0, "beams": 3},
        "sampled": {"seed": 3},
    }[case]
    found, wanted = (generate(run, PROMPTS, device=where, max_new_tokens=24, **settings) for where in (device, "cpu"))
    assert found == wanted, f"{found} is not {wanted}"
    return found[0][:60]


@item(SECTION, cases=["masked", "span_corruption"])
def blanks_are_filled_as_on_a_cpu(device: str, case: str) -> str:
    exact_products()
    run = trained(case)
    text = "The river ____ the letters before dawn."
    found, wanted = (fill(run, text, device=where) for where in (device, "cpu"))
    error = assert_near(
        torch.tensor(numbers(asdict(found))), torch.tensor(numbers(asdict(wanted))), 1e-3, "probabilities"
    )
    return f"relative error {error:.1e}"
