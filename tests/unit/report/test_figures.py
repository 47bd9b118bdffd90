"""Geometry: values land where the axis says they do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.report.synthetic_runs import EIGHT, write_study

from pretextlm.report import figures
from pretextlm.report.measures import measures
from pretextlm.report.page import render
from pretextlm.report.read import read


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (3.1, 9.2, [4, 6, 8]),
        (0, 120, [0, 50, 100]),
        (-6.2, -4.4, [-6, -5.5, -5, -4.5]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert figures.ticks(low, high) == expected


def test_ticks_of_an_empty_range_are_its_one_value() -> None:
    assert figures.ticks(2.0, 2.0) == [2.0]


def test_every_condition_has_two_panels_with_a_curve_per_seed(tmp_path: Path) -> None:
    columns = figures.learning_curves(read([write_study(tmp_path / "s", seeds=(1, 2))]))
    assert [[(p.title, p.x_label, len(p.curves)) for p in column] for column in columns] == [
        [(label, "seconds of training", 2), (label, "tokens read", 2)]
        for label in ("causal", "masked", "span_corruption")
    ]


def test_of_many_conditions_only_what_the_budget_limits_is_shown(tmp_path: Path) -> None:
    columns = figures.learning_curves(read([write_study(tmp_path / "s", EIGHT, seeds=(1,))]))
    assert [[panel.x_label for panel in column] for column in columns] == [["seconds of training"]] * 8


def test_a_curve_stays_in_its_panel_and_ends_at_the_budget(tmp_path: Path) -> None:
    for column in figures.learning_curves(read([write_study(tmp_path / "s")])):
        for panel in column:
            for curve in panel.curves:
                points = [tuple(map(float, part.split())) for part in curve.path.lstrip("M").split("L")]
                assert all(figures.LEFT <= x <= figures.WIDTH - figures.RIGHT for x, _ in points)
                assert all(figures.TOP <= y <= figures.HEIGHT - figures.BOTTOM for _, y in points)
                assert curve.end[0] == pytest.approx(figures.WIDTH - figures.RIGHT)


def test_a_dot_chart_puts_mean_and_interval_on_the_scale_of_its_ticks(tmp_path: Path) -> None:
    measure = measures(read([write_study(tmp_path / "s")]))[0]
    chart = figures.dot_chart(measure, chance=0.25)
    zero, twenty = chart.ticks[0].at, chart.ticks[1].at
    for row, measured in zip(chart.rows, measure.measured, strict=True):
        assert measured.interval is not None
        value = 0.2 * (row.mean - zero) / (twenty - zero)
        assert value == pytest.approx(measured.summary.mean, abs=1e-3)
        assert row.low is not None
        assert 0.2 * (row.low - zero) / (twenty - zero) == pytest.approx(measured.interval.low, abs=1e-3)
    assert chart.reference is not None
    assert chart.reference.at == pytest.approx(zero + 1.25 * (twenty - zero), abs=0.05)


def test_a_huge_interval_of_two_seeds_does_not_squash_the_data(tmp_path: Path) -> None:
    measure = next(
        m for m in measures(read([write_study(tmp_path / "s", seeds=(1, 2))])) if m.name == "blank_log_likelihood"
    )
    chart = figures.dot_chart(measure)
    assert all(0 <= x <= figures.WIDTH for row in chart.rows for x in (row.low, row.mean, row.high) if x is not None)
    assert max(r.mean for r in chart.rows) - min(r.mean for r in chart.rows) > figures.WIDTH / 8


@pytest.mark.parametrize("beyond", [-5.0, 5.0])
def test_chance_lies_within_a_chart_whose_values_are_all_better_or_worse(tmp_path: Path, beyond: float) -> None:
    measure = next(m for m in measures(read([write_study(tmp_path / "s")])) if m.name == "blank_log_likelihood")
    chart = figures.dot_chart(measure, chance=beyond)
    assert chart.reference is not None
    assert figures.PAD <= chart.reference.at <= figures.WIDTH - figures.PAD


def test_every_store_that_is_watched_has_a_panel_on_a_scale_of_its_own(tmp_path: Path) -> None:
    place = write_study(tmp_path / "s", seeds=(1, 2))
    for number, run in enumerate(sorted((place / "runs").iterdir())):
        lines = [
            {"kind": "forgetting", "store": store, "step": step, "tokens": 100 * step, "loss": base + number + step}
            for store, base in (("old", 0.0), ("older", 50.0))
            for step in (0, 1, 2)
        ]
        with (run / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    study = read([place])
    columns = figures.forgetting_curves(study)
    assert [[(p.title, p.y_label, len(p.curves)) for p in column] for column in columns] == [
        [(label, "loss on old", 2), (label, "loss on older", 2)] for label in ("causal", "masked", "span_corruption")
    ]
    assert columns[0][0].y_ticks == columns[2][0].y_ticks != columns[0][1].y_ticks
    assert "What they forgot" in render(study)


def test_without_a_store_that_is_watched_there_is_no_such_section(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s", seeds=(1,))])
    assert figures.forgetting_curves(study) == []
    assert "What they forgot" not in render(study)
