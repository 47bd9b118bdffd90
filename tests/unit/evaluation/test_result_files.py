"""Files of an evaluation are the run's own, or named after what was read."""

from __future__ import annotations

import json

import pytest

from pretextlm.evaluation.result_files import EVALUATION, ResultFiles


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("", "evaluation.json"),
        ("stores/own", "evaluation.json"),
        ("stores/../stores/own", "evaluation.json"),
        ("elsewhere/own", "evaluation-own.json"),
        ("data/dev.matched.jsonl.gz", "evaluation-dev.json"),
        ("data/dev.jsonl?text=a&label=b", "evaluation-dev.json"),
        ("hf:nyu-mll/glue:sst2?split=test", "evaluation-hf-nyu-mll-glue-sst2-split-test.json"),
        ("/", "evaluation-text.json"),
    ],
)
def test_names_follow_what_is_read(tmp_path, monkeypatch, place, name):
    monkeypatch.chdir(tmp_path)
    assert ResultFiles.of(tmp_path, place, "stores/own").path(EVALUATION) == tmp_path / name


def test_another_file_of_the_same_name_has_a_number_and_the_same_file_is_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(place: str) -> str:
        files = ResultFiles.of(tmp_path, place, "")
        files.path(EVALUATION).write_text(json.dumps({"settings": {"measured_on": files.place}}))
        return files.path("predictions.jsonl").name

    assert write("a/dev.tsv") == "predictions-dev.jsonl"
    assert write("b/dev.tsv") == "predictions-dev-2.jsonl"
    assert write(str(tmp_path / "a/dev.tsv")) == "predictions-dev.jsonl"
    (tmp_path / "evaluation-dev.json").write_text("damaged")
    assert write("c/dev.tsv") == "predictions-dev.jsonl"
