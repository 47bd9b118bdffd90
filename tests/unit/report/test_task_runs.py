"""The page of runs of a task: its scores, its curve, and records that are answered wrongly and rightly."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from pretextlm.config import write_toml
from pretextlm.report.page import render, summary
from pretextlm.report.read import read
from pretextlm.report.records import most_frequent, records


def write_run(
    path: Path, lines: list[tuple], *, task: str = "text_classification", name: str = "accuracy", sha256: str = "a"
) -> Path:
    """A run of a task with predictions: (texts by column, answer, wanted)."""
    path.mkdir()
    config = {
        "name": path.name,
        "seed": 3,
        "task": {"name": task},
        "data": {"train": "train.jsonl"},
        "training": {"budget_epochs": 2.0},
    }
    (path / "config.toml").write_text(write_toml(config))
    value = sum(answer == wanted for _, answer, wanted in lines) / len(lines)
    metric = {"value": value, "n": len(lines), "stderr": 0.1, "unit": "share", "better": "higher"}
    settings = {"data": "dev.jsonl", "sha256": sha256, "records": len(lines), "blanks": 0}
    (path / "evaluation.json").write_text(json.dumps({"metrics": {name: metric}, "settings": settings}))
    rows = [
        {"row": n, "answer": answer, "wanted": wanted, "input": read_}
        for n, (read_, answer, wanted) in enumerate(lines, 1)
    ]
    (path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [{"kind": "validation", "step": n, "tokens": 100 * n, "loss": 1 / n, "class_loss": 1 / n} for n in (1, 2)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for step in steps))
    return path


def text_of(study) -> str:
    page = re.sub(r"<style.*?</style>", "", render(study), flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


CLASSES = [({"sentence": f"Sentence {n}."}, "good" if n % 3 else "bad", "good") for n in range(30)]


def test_a_single_run_has_its_score_its_records_and_its_curve(tmp_path):
    study = read([write_run(tmp_path / "reviews", CLASSES)])
    told = summary(study)
    assert told["finding"] == "After 2 epochs, reviews reaches 66.7% accuracy."
    assert "Scored on 30 records; 95% interval" in told["qualification"]
    assert "Always answering good is right 100.0% of the time." in told["qualification"]
    page = text_of(study)
    assert "Learning curves" in page
    assert "What was trained" in page
    assert "Scored on dev.jsonl" in page
    assert "blanks" not in page.partition("All measures")[0]
    assert page.index("Sentence 0. Correct: good Reviews answers bad ✗ wrong") < page.index("answers good ✓ right")
    shown = records(study)
    assert [sample.answers[0].correct for sample in shown] == [False] * 6 + [True] * 4


def test_runs_of_one_task_are_compared_and_those_of_several_are_not(tmp_path):
    better = [(texts, "good", wanted) for texts, _, wanted in CLASSES]
    paths = [write_run(tmp_path / "one", CLASSES), write_run(tmp_path / "two", better)]
    study = read(paths)
    assert study.of_a_task
    assert "two reaches 100.0% accuracy, against 66.7% for one" in summary(study)["finding"]
    assert [a.correct for a in records(study)[0].answers] == [False, True]
    other = write_run(tmp_path / "three", CLASSES, sha256="b")
    apart = read([paths[0], other])
    assert not apart.of_a_task
    assert summary(apart)["finding"] == "These runs have no measure in common."


@pytest.mark.parametrize(
    ("line", "answer", "wanted", "correct"),
    [
        (({"question": "Who?", "context": "Ann did."}, "Ann", ["Ann", "Ann."]), "Ann", "Ann / Ann.", True),
        (({"question": "Who?", "context": "Ann did."}, "", []), "", "", True),
        (({"question": "Who?", "context": "Ann did."}, "Ann", []), "Ann", "", False),
        (
            ({"tokens": ["At", "Oak", "Street", "."]}, ["O", "B-x", "O", "O"], ["O", "B-x", "I-x", "O"]),
            "Oak/B-x",
            "Oak/B-x Street/I-x",
            False,
        ),
        (({"text": "Warm."}, 3.25, 4), "3.25", "4", None),
    ],
)
def test_answers_of_every_kind_are_put_in_words(tmp_path, line, answer, wanted, correct):
    (sample,) = records(read([write_run(tmp_path / "run", [line], task="question_answering", name="f1")]))
    assert (sample.answers[0].text, sample.expected, sample.answers[0].correct) == (answer, wanted, correct)


def test_texts_that_are_written_are_not_called_wrong(tmp_path):
    lines = [({"source": "Ein Hund."}, "One dog.", "A dog."), ({"source": "Brot."}, "Bread.", "Bread.")]
    study = read([write_run(tmp_path / "run", lines, task="text_to_text", name="bleu")])
    assert [sample.answers[0].correct for sample in records(study)] == [None, None]
    assert "Ein Hund. Correct: A dog. Run One dog." in text_of(study)


def test_of_numbers_the_largest_errors_come_first(tmp_path):
    lines = [({"text": f"Text {n}"}, n / 10, 0.0) for n in range(20)]
    shown = records(read([write_run(tmp_path / "run", lines, task="text_regression", name="pearson")]))
    assert [sample.parts[0] for sample in shown[:2]] == ["Text 19", "Text 18"]
    assert shown[6].parts[0] == "Text 0"
    assert len(shown) == 10


def test_a_run_whose_predictions_have_no_texts_still_has_a_page(tmp_path):
    path = write_run(tmp_path / "run", CLASSES)
    (path / "predictions.jsonl").write_text('{"row": 1, "answer": "good", "wanted": "good"}\n')
    assert records(read([path])) == []
    assert "What it answers" not in text_of(read([path]))


def test_the_most_frequent_class_is_that_of_the_right_answers():
    lines = [{"wanted": "a"}, {"wanted": "b"}, {"wanted": "b"}]
    assert most_frequent(lines) == ("b", pytest.approx(2 / 3))
    assert most_frequent([{"wanted": 1.0}]) is None
    assert most_frequent([]) is None
