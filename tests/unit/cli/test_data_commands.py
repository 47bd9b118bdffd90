"""`data prepare` and `data inspect` as a user runs them."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from pretextlm.cli import data
from pretextlm.errors import UserError


@pytest.fixture
def run(tmp_path):
    app = typer.Typer()
    app.command("prepare")(data.prepare)
    app.command("inspect")(data.inspect)
    lines = (
        json.dumps({"body": f"The {n}th day. 바다는 {n * 31 % 97}번 넓다."}, ensure_ascii=False) for n in range(120)
    )
    (tmp_path / "days.jsonl").write_text("\n".join(lines), encoding="utf-8")

    def invoke(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


def test_prepare_and_inspect_print_one_json_object(run, tmp_path):
    store = tmp_path / "store"
    options = ["--vocab-size", 448, "--field", "body", "--validation", 0.1, "--licence", "CC0-1.0", "--json"]
    made = run("prepare", tmp_path / "days.jsonl", "--out", store, *options)
    assert made.exit_code == 0
    summary = json.loads(made.stdout)
    assert summary["splits"]["train"]["documents"] == 108
    assert summary["splits"]["validation"]["documents"] == 12
    assert summary["sources"][0]["licence"] == "CC0-1.0"
    seen = json.loads(run("inspect", store, "--samples", 2, "--verify", "--json").stdout)
    assert seen["splits"] == summary["splits"]
    assert seen["verified"] is True
    assert len(seen["samples"]) == 2
    assert seen["samples"][0]["text"].startswith("The ")
    assert sum(row["documents"] for row in seen["lengths"]) == 108


def test_inspect_shows_counts_sources_lengths_and_samples_to_people(run, tmp_path):
    run("prepare", tmp_path / "days.jsonl", "--out", tmp_path / "store", "--vocab-size", 448, "--field", "body")
    shown = run("inspect", tmp_path / "store").stdout
    for part in ("448 ids", "days.jsonl", "not known", "Tokens in a document", "바다는"):
        assert part in shown.replace("\n", "")


def test_a_wrong_option_reaches_the_user_as_an_error_with_a_hint(run, tmp_path):
    with pytest.raises(UserError, match="no field 'text'") as caught:
        run("prepare", tmp_path / "days.jsonl", "--out", tmp_path / "store")
    assert "--field" in caught.value.hint
