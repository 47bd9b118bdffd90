"""What was compared is introduced by what sets it apart."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from pretextlm.config import write_toml
from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.report import glossary
from pretextlm.report.facts import cost_cells, options_text
from pretextlm.report.format import THIN
from pretextlm.report.read import Run


def resolved(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """As a run's config.toml has it: every default written out."""
    values = {"name": name, **build(name, options).model_dump(mode="json", exclude_none=True)}
    return tomllib.loads(write_toml(values))


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("causal", {}, "as by default"),
        ("masked", {"rate": 0.4}, "rate = 0.4"),
        ("masked", {"rate": 0.4, "predict": "next"}, "rate = 0.4, predict = next"),
        ("next_sentence", {}, "as by default"),
        ("next_sentence", {"inner": "off"}, "inner = off"),
        ("next_sentence", {"inner": {"rate": 0.3}}, "inner = masked (rate = 0.3)"),
        ("word_structure", {"inner": "bimodal_code"}, "inner = bimodal_code"),
        ("bimodal_code", {"masked": {"rate": 0.3}}, "masked = (rate = 0.3)"),
        ("denoisers", {"table": "teaching"}, "table = a table of 3 rows"),
        ("distillation", {"teacher": "runs/a", "inner": "causal"}, "teacher = runs/a, inner = causal"),
    ],
)
def test_options_that_are_not_as_by_default_are_named(name: str, options: dict[str, Any], expected: str) -> None:
    assert options_text(resolved(name, options)) == expected


def test_what_is_not_known_here_is_shown_as_it_is() -> None:
    assert options_text({"name": "newer", "rate": 0.15, "fast": True}) == "rate = 0.15, fast = true"
    assert options_text({}) == ""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_introduced_in_a_sentence_of_its_own(name: str) -> None:
    entry = glossary.objective(name)
    assert glossary.objective(name).sentence == OBJECTIVES[name].summary
    assert entry.sentence.endswith(".")
    assert entry.title != name
    assert entry.paper


def test_measured_energy_is_shown_with_its_carbon_where_that_is_known() -> None:
    cost = {"parameters": 5, "tokens": 10, "seconds": 2.0, "flops": 8.0}
    cells = [
        cost_cells([Run(Path("run"), "a", 1, "finished", cost={**cost, **measured})])[-1]
        for measured in (
            {"energy_joules": None, "co2_grams": None},
            {"energy_joules": 7.2e6, "co2_grams": None},
            {"energy_joules": 7.2e6, "co2_grams": 600.0},
        )
    ]
    assert cells == ["not measured", f"7.20{THIN}MJ", f"7.20{THIN}MJ, 600{THIN}g CO₂"]
