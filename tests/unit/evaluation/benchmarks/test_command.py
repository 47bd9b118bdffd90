"""`evaluate --benchmark`, `--harness` and `--probe` as a user runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import typer
from small_corpus import WORDS, documents
from tests.builders import make_run
from typer.testing import CliRunner

from pretextlm.cli import evaluate
from pretextlm.errors import UserError


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    return make_run(store, tmp_path_factory.mktemp("command") / "run")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data")
    (place / "lambada-openai").mkdir()
    rows = [{"text": " ".join(text.split()[:9]), "kind": n % 2} for n, text in enumerate(documents(12, 5))]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (place / "lambada-openai" / "test.jsonl").write_text(lines)
    (place / "piqa").mkdir()
    questions = [{"question": WORDS[n], "choices": WORDS[n : n + 2], "answer": 0} for n in range(4)]
    (place / "piqa" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions))
    return place


def called(*arguments: str):
    app = typer.Typer()
    app.command()(evaluate.evaluate)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_scores_are_one_json_object_or_a_table_that_says_what_was_left_out(run, data):
    asked = [str(run), "--benchmark", "lambada", "--data", str(data), "--limit", "5"]
    found = json.loads(called(*asked, "--json"))
    assert found["benchmarks"]["lambada"]["metrics"]["perplexity"]["n"] == 5
    table = called(*asked)
    for part in ("continuation", "perplexity ↓", "accuracy ↑", "lambada: only the first 5 of each group."):
        assert part in table


def test_several_measurements_stand_in_one_answer_and_one_file(run, data):
    pytest.importorskip("sklearn")
    probe = f"{data / 'lambada-openai' / 'test.jsonl'}?text=text&label=kind"
    found = json.loads(called(str(run), "--benchmark", "lambada", "--probe", probe, "--data", str(data), "--json"))
    assert list(found) == ["benchmarks", "probes"]
    assert set(json.loads((run / "benchmarks.json").read_text())) >= {"benchmarks", "probes"}


@pytest.mark.slow
def test_lm_eval_answers_in_json_alone_and_may_be_asked_for_another_part(run, data):
    pytest.importorskip("lm_eval")
    asked = (str(run), "--harness", "piqa,lambada_openai", "--data", str(data))
    with pytest.raises(UserError, match="has no file test or validation"):
        called(*asked)
    (data / "lambada-openai" / "train.jsonl").write_text((data / "lambada-openai" / "test.jsonl").read_text())
    found = json.loads(called(*asked, "--split", "train", "--json"))
    assert found["harness"]["piqa"]["metrics"]["acc"]["n"] == 4
    found = json.loads(called(*asked, "--split", "train", "--shots", "2", "--seed", "1", "--json"))
    assert found["harness"]["piqa"]["settings"]["shots"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--limit", "3"], "--limit says nothing of the run's own held-out text"),
        (["--benchmark", "lambada", "--documents", "3"], "--documents says nothing of --benchmark"),
        (["--probe", "a.jsonl?text=a&label=b", "--shots", "3"], "--shots says nothing of --probe"),
        (["--benchmark", "lambda"], "no benchmark named 'lambda'"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(run, options, message):
    with pytest.raises(UserError, match=message):
        called(str(run), *options)


def test_a_missing_lm_eval_is_named_with_the_extra(run, monkeypatch):
    monkeypatch.delitem(sys.modules, "pretextlm.evaluation.harness", raising=False)
    monkeypatch.setitem(sys.modules, "lm_eval.api.model", None)
    with pytest.raises(UserError, match="needs the package 'lm-eval'") as caught:
        called(str(run), "--harness", "piqa")
    assert "pretextlm[harness]" in caught.value.hint
    sys.modules.pop("pretextlm.evaluation.harness", None)
