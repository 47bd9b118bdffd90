"""What is asked without labels is answered as in an evaluation, where labels are there and hidden from the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from tests.builders import sentences
from typer.testing import CliRunner

from pretextlm.cli.predict import predict as command
from pretextlm.errors import UserError
from pretextlm.evaluation.predict import predict
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.training.pretrain import pretrain

pytestmark = pytest.mark.slow

A, B = sentences(24, seed=1), sentences(24, seed=2)
WORDS = [text.split() for text in A]
TAGS = [["B-x", "I-x", *["O"] * (len(words) - 2)] for words in WORDS]
KINDS = {
    "text_classification": ({"text_pair": "other"}, {"label": [f"c{n % 3}" for n in range(24)]}),
    "text_regression": ({}, {"label": [n / 3 for n in range(24)]}),
    "multiple_choice": ({"choices": ["other", "text"], "label_names": "0,1"}, {"label": [n % 2 for n in range(24)]}),
    "token_classification": ({"tokens": "words"}, {"tags": TAGS}),
    "question_answering": (
        {"question": "other", "context": "text"},
        {"answers": [{"text": [text[:5]], "answer_start": [0]} for text in A]},
    ),
}


def records(answers=None):
    columns = {"text": A, "other": B, "words": WORDS, **(answers or {})}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize("task", KINDS)
def test_answers_need_no_labels_and_are_those_of_an_evaluation(recipe, written, tmp_path, task):
    options, answers = KINDS[task]
    chosen = recipe({"name": task, **options}, written(records(answers)), learning_rate=1e-2)
    run = pretrain(chosen, tmp_path / "run")
    evaluate_task(run)
    lines = (run.directory / "predictions.jsonl").read_text().splitlines()
    found = predict(run.directory, file=written(records(), "asked.jsonl"))
    assert [one["row"] for one in found] == list(range(1, 25))
    wanted = [json.loads(line)["answer"] for line in lines]
    if task == "text_regression":
        np.testing.assert_allclose([one["answer"] for one in found], wanted, rtol=1e-5)
    else:
        assert [one["answer"] for one in found] == wanted
    if "probabilities" in found[0]:
        best = [max(one["probabilities"], key=one["probabilities"].get) for one in found]
        assert best == wanted
        assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in found)
    elsewhere = evaluate_task(run, written(records(answers)[:7], "other.jsonl"))
    assert elsewhere["settings"]["file"] == "evaluation-other.json"
    assert len((run.directory / "predictions-other.jsonl").read_text().splitlines()) == 7
    assert (run.directory / "predictions.jsonl").read_text().splitlines() == lines
    assert json.loads((run.directory / "evaluation.json").read_text())["settings"]["records"] == 24


def test_names_are_cut_out_of_what_is_tagged(recipe, written, tmp_path):
    options, answers = KINDS["token_classification"]
    chosen = recipe({"name": "token_classification", **options}, written(records(answers)))
    run = pretrain(
        chosen.model_copy(update={"training": chosen.training.model_copy(update={"budget_steps": 60})}), tmp_path / "r"
    )
    for one in predict(run.directory, ["The river carries bread"]):
        for name in one["names"]:
            assert name["text"] == one["text"][name["start"] : name["end"]]
            first = [begin for begin, _ in one["offsets"]].index(name["start"])
            assert one["answer"][first] == f"B-{name['type']}"


def test_a_text_alone_is_a_point_and_a_prompt_alone_is_answered(recipe, written, tmp_path):
    pairs = [{"anchor": a, "positive": b} for a, b in zip(A, B, strict=True)]
    run = pretrain(recipe({"name": "sentence_embedding"}, written(pairs)), tmp_path / "points")
    (one, two), (again,) = predict(run.directory, [A[0], A[1]]), predict(run.directory, [A[0]])
    np.testing.assert_allclose(one["answer"], again["answer"], atol=1e-6)
    assert np.linalg.norm(two["answer"]) == pytest.approx(1, abs=1e-5)


def test_what_is_typed_names_the_columns_that_the_task_reads(recipe, written, tmp_path):
    options, answers = KINDS["text_classification"]
    chosen = recipe({"name": "text_classification", **options}, written(records(answers)))
    run = pretrain(chosen, tmp_path / "run").directory
    (typed,) = predict(run, [f"other={B[3]}", f"text={A[3]}"])
    (read,) = predict(run, file=written(records()[3:4], "one.jsonl"))
    assert typed["probabilities"] == read["probabilities"]
    (given,) = predict(run, {"text": A[3], "other": B[3]})
    assert given["probabilities"] == read["probabilities"]
    many = predict(run, [{"text": a, "other": b} for a, b in zip(A[2:4], B[2:4], strict=True)])
    assert [one["row"] for one in many] == [1, 2]
    np.testing.assert_allclose(list(many[1]["probabilities"].values()), list(read["probabilities"].values()), atol=1e-6)
    with pytest.raises(UserError, match="no column 'txt'"):
        predict(run, {"txt": A[3], "other": B[3]})
    with pytest.raises(UserError, match="reads 'other', too"):
        predict(run, [f"text={A[0]}"])
    with pytest.raises(UserError, match="'txt' is none of them"):
        predict(run, ["txt=x", "other=y"])
    with pytest.raises(UserError, match="'A text alone' names none of them"):
        predict(run, ["A text alone", "and another"])
    with pytest.raises(UserError, match="given twice"):
        predict(run, ["text=x", "text=y"])
    with pytest.raises(UserError, match="on no task"):
        predict(Path(chosen.start), ["x"])


def test_the_command_reads_texts_files_and_standard_input_and_writes_lines_or_json(recipe, written, tmp_path):
    chosen = recipe({"name": "text_classification"}, written(records(KINDS["text_classification"][1])))
    run = pretrain(chosen.model_copy(update={"data": chosen.data.model_copy(update={"length": 16})}), tmp_path / "run")
    app = typer.Typer()
    app.command()(command)

    def ask(*arguments, typed=None):
        done = CliRunner().invoke(app, [str(run.directory), *map(str, arguments)], input=typed, catch_exceptions=False)
        assert done.exit_code == 0
        return done

    long = " ".join(A)
    (tmp_path / "texts.txt").write_text(f"{A[0]}\n\n{long}\n")
    shown = ask(A[0], long)
    assert shown.stdout.splitlines()[0].count("%") == 3
    assert re.fullmatch(r"row 2: 16 of [\d,]+ tokens were read\n", shown.stderr)
    assert ask("--in", tmp_path / "texts.txt").stdout == shown.stdout
    assert ask(typed=f"{A[0]}\n{long}\n").stdout == shown.stdout
    lines = ask(A[0], long, "--json").stdout
    assert ask(typed="".join(json.dumps({"text": text}) + "\n" for text in (A[0], long)), *["--json"]).stdout == lines
    assert "note" not in json.loads(lines.splitlines()[0])
    for name, content in (("answers.txt", shown.stdout), ("answers.jsonl", lines)):
        ask(A[0], long, "--out", tmp_path / name)
        assert (tmp_path / name).read_text() == content
    with pytest.raises(UserError, match="reads the column text, and not hypothesis, premise"):
        predict(run, ["premise=A", "hypothesis=B"])
    with pytest.raises(UserError, match="Line 2 is not a JSON object"):
        ask(typed='{"text": "x"}\ny\n')
    with pytest.raises(UserError, match="There is no text"):
        ask(typed="")
