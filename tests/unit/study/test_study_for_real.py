"""A whole study with nothing replaced: three tiny models are trained, evaluated and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.builders import make_store

from pretextlm.report.page import write_report
from pretextlm.study.compare import run_plan
from pretextlm.study.plan import StudyPlan

pytestmark = pytest.mark.slow


def test_a_study_of_three_objectives_ends_in_a_table_and_a_page(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = StudyPlan.parse(
        {
            "store": str(make_store(tmp_path / "store").path),
            "objectives": ["causal", "masked", "span_corruption"],
            "seeds": [1],
            "budget": {"tokens": 4096},
            "length": 32,
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"batch_tokens": 512, "device": "cpu", "compile": "off", "validation_rows": 4},
            "evaluation": {"documents": 2, "blanks": 10, "prompts": 1},
        }
    )
    outcome = run_plan(plan, tmp_path / "study")
    assert outcome.failed == {}
    assert outcome.finished == ["causal-seed1", "masked-seed1", "span_corruption-seed1"]
    page, summary = write_report([tmp_path / "study"])
    shared = {"blank_choice_accuracy", "blank_exact_match", "blank_log_likelihood", "loss"}
    for label, own in (("causal", "perplexity"), ("masked", "fill_accuracy"), ("span_corruption", "span_exact_match")):
        assert shared | {own} <= set(summary["conditions"][label])
    text = page.read_text(encoding="utf-8")
    for run in outcome.finished:
        parameters = json.loads((tmp_path / "study/runs" / run / "cost.json").read_text())["parameters"]
        assert f"{parameters:,}" in text
    assert "After 4,096 tokens each, " in text


def test_a_study_of_many_kinds_takes_the_common_benchmark_where_it_can(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plan = StudyPlan.parse(
        {
            "store": str(make_store(tmp_path / "store").path),
            "objectives": [
                "prefix",
                "replaced_token",
                "permutation",
                "masked_sequence",
                {"name": "mixed_visibility", "architecture": "encoder"},
                {"name": "next_sentence", "label": "pairs-alone", "inner": "off"},
            ],
            "seeds": [1],
            "budget": {"tokens": 1024},
            "length": 32,
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"batch_tokens": 512, "device": "cpu", "compile": "off", "validation_rows": 4},
            "evaluation": {"documents": 2, "blanks": 10, "prompts": 1},
        }
    )
    outcome = run_plan(plan, tmp_path / "study")
    assert outcome.failed == {}
    page, summary = write_report([tmp_path / "study"])
    ruled = {label for label, measures in summary["conditions"].items() if "blank_choice_accuracy" in measures}
    assert ruled == set(summary["conditions"]) - {"pairs-alone"}
    assert set(summary["conditions"]["pairs-alone"]) == {"loss", "pair_accuracy"}
    assert "Pairs-alone fills no blanks" in page.read_text(encoding="utf-8")
