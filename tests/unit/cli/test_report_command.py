"""What `pretextlm report` and `compare` print of few conditions and of many."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.report.synthetic_runs import EIGHT, NO_BLANKS, write_study

from pretextlm.cli.report import print_summary
from pretextlm.report.page import summary
from pretextlm.report.read import read


def printed(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COLUMNS", "80")
    print_summary(summary(read([study])), study / "report.html")
    return capsys.readouterr().out.splitlines()


def test_few_conditions_stand_side_by_side(tmp_path, monkeypatch, capsys) -> None:
    lines = printed(write_study(tmp_path / "s"), monkeypatch, capsys)
    (head,) = [line for line in lines if line.split() == ["causal", "masked", "span_corruption"]]
    assert any(line.startswith("Perplexity") and line.count("–") == 2 for line in lines)
    assert len(head) <= 80


def test_many_conditions_have_a_line_each_and_their_own_measures_below(tmp_path, monkeypatch, capsys) -> None:
    lines = printed(write_study(tmp_path / "s", (*EIGHT, NO_BLANKS), (1, 2)), monkeypatch, capsys)
    for name in EIGHT:
        assert len([line for line in lines if line.startswith(f"{name} ") and line.count("±") == 3]) == 1
    assert not [line for line in lines if line.startswith(f"{NO_BLANKS} ")]
    assert [line for line in lines if line.startswith(f"{NO_BLANKS}: pairs told right")]
    assert all(len(line) <= 80 for line in lines if not line.startswith("report: "))
