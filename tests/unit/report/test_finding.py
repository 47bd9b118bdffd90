"""The finding says what the data carry, and no more."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from tests.unit.report.synthetic_runs import EIGHT, write_run, write_study

from pretextlm.report.finding import finding
from pretextlm.report.measures import common_measures, measures, paired
from pretextlm.report.read import Study, read


def found(study: Study) -> tuple[str, str]:
    return finding(study, common_measures(measures(study)))


def test_a_clear_lead_over_several_seeds_is_called_one(tmp_path: Path) -> None:
    headline, qualification = found(read([write_study(tmp_path / "s")]))
    assert headline.startswith("After 2 minutes of training each, masked chooses the right word for 6")
    assert "for causal and" in headline
    assert "intervals of masked and the others over 3 seeds do not overlap." in qualification
    assert "A blind choice is right 25.0% of the time." in qualification


def test_two_that_the_seeds_do_not_tell_apart_are_too_close_to_call(tmp_path: Path) -> None:
    skills = {"causal": 0.5, "masked": 0.5, "span_corruption": 0.3}
    headline, qualification = found(read([write_study(tmp_path / "s", skills=skills)]))
    assert "are too close to call on the held-out blanks, ahead of span corruption" in headline
    assert "do not tell" in qualification


def test_nobody_is_called_behind_one_that_scored_less(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", seeds=(1, 2))
    scores = {"causal": (0.50, 0.51), "masked": (0.40, 0.41), "span_corruption": (0.10, 0.68)}
    for condition, values in scores.items():
        for seed, value in enumerate(values, start=1):
            metric = {"value": value, "n": 200, "stderr": 0.03, "unit": "share", "better": "higher"}
            path = study / f"runs/{condition}-seed{seed}/evaluation.json"
            path.write_text(json.dumps({"metrics": {"blank_choice_accuracy": metric}}))
    headline, _ = found(read([study]))
    assert "causal (50.5%), masked (40.5%) and span corruption (39.0%) are too close to call" in headline


def test_the_first_two_are_compared_on_the_same_blanks(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s")])
    _, qualification = found(study)
    value = -100 * paired(study)[0].difference.value
    assert f"(40 blanks, these seeds), masked less causal is +{value:.1f} points (95% interval " in qualification


def test_with_one_seed_each_the_lead_is_a_hint(tmp_path: Path) -> None:
    skills = {"causal": 0.2, "masked": 0.9, "span_corruption": 0.2}
    headline, qualification = found(read([write_study(tmp_path / "s", seeds=(1,), skills=skills)]))
    assert "masked chooses" in headline
    assert "more than one seed" in qualification
    assert "hint" in qualification


def test_one_seed_names_no_order_that_the_blanks_do_not_tell_apart(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s", seeds=(1,), skills=dict.fromkeys(("causal", "masked"), 0.6))])
    interval = paired(study)[0].difference.interval
    assert interval is not None
    assert interval.low <= 0 <= interval.high
    headline, qualification = found(study)
    assert "are too close to call" in headline
    assert "against" not in headline
    assert "hint" in qualification


def test_no_order_is_named_of_conditions_that_only_guess(tmp_path: Path) -> None:
    skills = {"causal": 0.27, "masked": 0.25, "span_corruption": 0.24}
    headline, qualification = found(read([write_study(tmp_path / "s", skills=skills)]))
    assert re.fullmatch(
        r"After 2 minutes of training each, no objective can be told from a blind choice, which is right for 25.0% of "
        r"the held-out blanks; scores are from [\d.]+% to [\d.]+%\.",
        headline,
    )
    assert "cannot be told from that" in qualification


def test_one_that_is_no_better_than_chance_is_said_to_be(tmp_path: Path) -> None:
    skills = {"causal": 0.6, "masked": 0.5, "span_corruption": 0.25}
    _, qualification = found(read([write_study(tmp_path / "s", skills=skills)]))
    assert "span corruption cannot be told from that" in qualification


def test_of_many_the_first_the_next_and_the_last_are_named(tmp_path: Path) -> None:
    skills = {name: 0.9 - 0.1 * place for place, name in enumerate(EIGHT)}
    study = read([write_study(tmp_path / "s", EIGHT, skills=skills)])
    headline, qualification = found(study)
    assert re.search(
        r"causal chooses the right word for [\d.]+% of the held-out blanks, against [\d.]+% for masked, the next of 7 "
        r"others, and [\d.]+% for fill in middle, the last\.$",
        headline,
    )
    assert "masked" in qualification
    pairs = [(p.first.label, p.second.label) for p in paired(study)]
    assert pairs == list(itertools.pairwise(EIGHT))


def test_of_many_those_behind_a_tie_are_counted(tmp_path: Path) -> None:
    skills = dict.fromkeys(EIGHT, 0.3) | {"causal": 0.8, "prefix": 0.8}
    headline, _ = found(read([write_study(tmp_path / "s", EIGHT, skills=skills)]))
    assert re.search(r"are too close to call on the held-out blanks, ahead of 6 others, from \w", headline)


def test_one_run_is_compared_with_nothing(tmp_path: Path) -> None:
    headline, qualification = found(read([write_run(tmp_path / "causal-seed1", "causal", 1)]))
    assert headline.startswith("After 2 minutes of training, causal chooses")
    assert qualification.startswith("Measured over 1 seed;")


def test_without_an_evaluation_nothing_is_found(tmp_path: Path) -> None:
    headline, _ = found(read([write_run(tmp_path / "causal-seed1", "causal", 1, finished=False)]))
    assert headline == "No run is evaluated on the common blanks yet."


def test_the_mean_over_seeds_is_the_mean(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s")])
    measure = next(m for m in measures(study) if m.name == "blank_choice_accuracy")
    values = [run.metrics["blank_choice_accuracy"].value for run in study.conditions[1].runs]
    measured = measure.of(study.conditions[1])
    assert measured is not None
    assert measured.summary.mean == pytest.approx(sum(values) / 3)
    assert measured.summary.n == 3


def test_measures_that_all_share_come_first(tmp_path: Path) -> None:
    names = [m.name for m in measures(read([write_study(tmp_path / "s")]))]
    assert names[:3] == ["blank_choice_accuracy", "blank_exact_match", "blank_log_likelihood"]


def test_pairs_compare_the_same_blanks(tmp_path: Path) -> None:
    pairs = paired(read([write_study(tmp_path / "s", seeds=(1, 2))]))
    assert [(p.first.label, p.second.label, p.n) for p in pairs] == [
        ("causal", "masked", 40),
        ("causal", "span_corruption", 40),
        ("masked", "span_corruption", 40),
    ]
    first, second, third = (p.difference.value for p in pairs)
    assert second == pytest.approx(first + third)


def test_seeds_that_agree_on_a_coarse_measure_do_not_make_it_certain(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1, 2))
    metric = {"value": 0.1, "n": 60, "stderr": 0.04, "unit": "share", "better": "higher"}
    for run in (study / "runs").iterdir():
        (run / "evaluation.json").write_text(json.dumps({"metrics": {"blank_exact_match": metric}}))
    measured = measures(read([study]))[0].measured[0]
    assert measured.summary.deviation == 0
    assert measured.half_width == pytest.approx(1.959964 * 0.04)


def test_blanks_that_are_all_wrong_leave_the_interval_unknown(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s", ("causal",), (1,))
    metric = {"value": 0.0, "n": 60, "stderr": 0.0, "unit": "share", "better": "higher"}
    path = study / "runs/causal-seed1/evaluation.json"
    path.write_text(json.dumps({"metrics": {"blank_exact_match": metric}}))
    assert measures(read([study]))[0].measured[0].half_width is None


def test_a_budget_that_runs_do_not_share_is_not_stated(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "causal-seed1", "causal", 1), write_run(tmp_path / "masked-seed1", "masked", 1)
    assert found(read([one, two]))[0].startswith("After 2 minutes of training each, ")
    config = (two / "config.toml").read_text().replace("budget_seconds = 120.0", "budget_seconds = 60.0")
    (two / "config.toml").write_text(config)
    assert found(read([one, two]))[0].startswith("masked (")


def test_runs_that_were_asked_different_blanks_are_not_held_against_each_other(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "causal-seed1", "causal", 1), write_run(tmp_path / "masked-seed1", "masked", 1)
    warning = "not all asked the same blanks"
    assert warning not in found(read([one, two]))[1]
    evaluation = json.loads((two / "evaluation.json").read_text())
    evaluation["settings"]["blanks"] = 60
    (two / "evaluation.json").write_text(json.dumps(evaluation))
    assert warning in found(read([one, two]))[1]


def test_runs_that_are_only_known_by_what_they_forgot_are_told_apart_by_it(tmp_path: Path) -> None:
    for label, value in (("plain", 0.9), ("replayed", 0.25)):
        path = write_run(tmp_path / label, "causal", 1)
        metric = {"value": value, "n": 9, "stderr": 0.1, "unit": "nats", "better": "lower"}
        (path / "evaluation.json").write_text(json.dumps({"metrics": {"forgotten:old": metric}}))
    headline, qualification = found(read([tmp_path / "plain", tmp_path / "replayed"]))
    assert headline == "What was forgotten: of old, replayed 0.250 and plain 0.900 nats a target."
    assert "pretextlm evaluate RUN" in qualification
