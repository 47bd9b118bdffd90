"""The report reads whatever is there of a run, and says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.report.synthetic_runs import write_run, write_study

from pretextlm.errors import UserError
from pretextlm.report.read import read, read_run


def test_a_study_has_its_conditions_in_the_order_of_the_plan(tmp_path: Path) -> None:
    study = read([write_study(tmp_path / "s", ("masked", "causal"), (2, 1))])
    assert [condition.label for condition in study.conditions] == ["masked", "causal"]
    assert [run.seed for run in study.conditions[0].runs] == [2, 1]
    assert all(run.state == "finished" and not run.problem for run in study.runs)


def test_a_planned_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_study(tmp_path / "s", ("causal",), (1,))
    (path / "study.toml").write_text('name = "n"\nseeds = [1, 2]\nobjectives = [{name = "causal", label = "causal"}]\n')
    missing = read([path]).runs[1]
    assert (missing.path.name, missing.state, missing.problem) == ("causal-seed2", "unfinished", "has not begun")


def test_a_run_in_progress_says_how_far_it_is_even_when_its_last_line_is_torn(tmp_path: Path) -> None:
    path = write_run(tmp_path / "causal-seed1", "causal", 1, finished=False)
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "validation", "step": 99')
    run = read_run(path)
    assert run.state == "unfinished"
    assert run.problem == "is unfinished: its last line is of step 320"
    assert len(run.validation) == 9


def test_a_run_that_is_trained_but_not_evaluated_says_so(tmp_path: Path) -> None:
    path = write_run(tmp_path / "causal-seed1", "causal", 1)
    (path / "evaluation.json").unlink()
    assert read_run(path).problem == "is trained but not evaluated"


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    path = write_study(tmp_path / "s", ("causal",), (1,))
    (path / "runs/causal-seed1/evaluation.json").unlink()
    (path / "command.json").write_text(json.dumps({"failed": {"causal-seed1": "The disk is full."}}))
    run = read([path]).runs[0]
    assert (run.state, run.problem) == ("failed", "failed: The disk is full.")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"metrics": []}', '{"metrics": {"a": {"value": NaN}}}', "\x00"]
)
def test_a_broken_evaluation_is_none(tmp_path: Path, content: str) -> None:
    path = write_run(tmp_path / "causal-seed1", "causal", 1)
    (path / "evaluation.json").write_text(content)
    assert read_run(path).metrics == {}


def test_line_separators_inside_a_sample_do_not_tear_it(tmp_path: Path) -> None:
    path = write_run(tmp_path / "causal-seed1", "causal", 1)
    sample = {"kind": "prompt", "text": "a\u2028b", "answer": "c\x85d"}
    (path / "samples.jsonl").write_text(json.dumps(sample, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_run(path).samples == (sample,)


def test_several_runs_that_differ_in_seed_make_one_condition(tmp_path: Path) -> None:
    paths = [write_run(tmp_path / f"{o}-seed{s}", o, s) for o in ("causal", "masked") for s in (1, 2)]
    study = read(paths)
    assert [(c.label, len(c.runs)) for c in study.conditions] == [("causal", 2), ("masked", 2)]


def test_a_directory_that_is_neither_run_nor_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a run nor a study") as caught:
        read([tmp_path])
    assert "pretextlm compare" in caught.value.hint
