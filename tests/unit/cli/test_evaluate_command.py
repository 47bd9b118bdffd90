"""`evaluate RUN` as a user runs it: how much is read, from where, and where the results are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from tests.builders import documents, make_run
from typer.testing import CliRunner

from pretextlm.cli import evaluate
from pretextlm.cli.shared.evaluation_output import show_evaluation
from pretextlm.data.prepare import prepare
from pretextlm.errors import UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("evaluate")
    for number, name in enumerate(("one.txt", "two.txt")):
        (place / name).write_text("\n".join(documents(50, seed=number)))
    sources = [place / "one.txt", place / "two.txt"]
    store = prepare(sources, place / "store", vocab_size=448, text_mode="lines", validation=0.3)
    return make_run(store, place / "run")


def called(*arguments: object) -> str:
    app = typer.Typer()
    app.command()(evaluate.evaluate)
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_output_says_what_was_read_and_where_the_results_are(run):
    printed = called(run, "--documents", 13, "--tokens", "all")
    settings = json.loads((run / "evaluation.json").read_text())["settings"]
    assert settings["documents"] == 13
    for part in (
        f"Read 13 of 30 documents, {settings['tokens']:,} of {settings['tokens_total']:,} tokens",
        "one.txt",
        "two.txt",
        f"Written to {run / 'evaluation.json'}.",
    ):
        assert part in printed
    few = called(run, "--documents", 5)
    assert "No standard error of the loss: it is over documents, and fewer than ten were read." in few
    assert json.loads(called(run, "--documents", "all", "--tokens", "all", "--json"))["settings"]["documents"] == 30


def test_every_source_has_a_row(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    loss = {"value": 2.5, "stderr": 0.25, "n": 80, "unit": "nats", "better": "lower"}
    sizes = {"documents": 12, "documents_total": 40, "tokens": 1234, "tokens_total": 5000}
    result = {"metrics": {"loss": loss}, "settings": {**sizes, "file": "evaluation.json"}}
    result["sources"] = {"korean": {**sizes, "metrics": {"loss": loss}}, "chinese": {**sizes, "metrics": {}}}
    show_evaluation(Path("run"), result)
    printed = capsys.readouterr().out
    assert re.search(r"korean +│ +12 of 40 │ 1,234 of 5,000 │ 2.5000 ± 0.2500 │", printed)
    assert re.search(r"chinese +│ +12 of 40 │ 1,234 of 5,000 │ +│", printed)


def test_a_text_file_has_a_perplexity_and_a_file_of_its_own(run, tmp_path):
    own = (run / "evaluation.json").read_bytes()
    (tmp_path / "some.txt").write_text("The river carries the letters before dawn. " * 20)
    printed = called(run, "--text", tmp_path / "some.txt", "--length", 16, "--stride", 8)
    for part in ("perplexity ↓", "word_perplexity ↓", "windows of 16, stride 8;", str(run / "evaluation-some.json")):
        assert part in printed
    assert (run / "evaluation.json").read_bytes() == own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--documents", "0"], "--documents 0 is no number of documents"),
        (["--tokens", "many"], "--tokens many is no number of tokens"),
        (["--text", "a.txt", "--tokens", "5"], "--tokens says nothing of --text"),
        (["--stride", "5"], "--stride says nothing of a store"),
        (["--text", "a.txt"], "a.txt does not exist"),
    ],
)
def test_what_does_not_fit_is_refused(run, options, message):
    with pytest.raises(UserError, match=message):
        called(run, *options)
