"""Benchmarks of a run: scores with all that says how they came about, added to the run's benchmarks.json."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from small_corpus import WORDS, documents
from tests.builders import make_run

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import Benchmark, find
from pretextlm.evaluation.benchmarks.run import Opened, evaluate_benchmarks
from pretextlm.hf.provenance import Origin
from pretextlm.training.checkpoint import save
from pretextlm.training.run_manifest import RunManifest


@pytest.fixture(scope="module", params=["causal", "masked", "span_corruption"])
def run(request, store, tmp_path_factory) -> Path:
    return make_run(store, tmp_path_factory.mktemp("benchmarks") / request.param, request.param)


@pytest.fixture(scope="module")
def causal(store, tmp_path_factory) -> Path:
    return make_run(store, tmp_path_factory.mktemp("benchmarks") / "run", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Local copies in the form the benchmarks expect, made of the corpus's words."""
    place = tmp_path_factory.mktemp("data")
    texts = [text.split()[:8] for text in documents(6, 5)]
    pairs = [{"sentence_good": " ".join(words), "sentence_bad": " ".join(words[::-1])} for words in texts]
    write(place / "blimp" / "one.jsonl", [{**pair, "UID": "one"} for pair in pairs[:4]])
    write(place / "blimp" / "two.jsonl", [{**pair, "UID": "two"} for pair in pairs[4:]])
    questions = [
        {"question": " ".join(WORDS[n : n + 5]), "choices": WORDS[n : n + 4], "answer": n % 4} for n in range(9)
    ]
    write(place / "arc-easy" / "test.jsonl", questions)
    write(place / "arc-easy" / "train.jsonl", questions[::-1])
    write(place / "lambada-openai" / "test.jsonl", [{"text": " ".join(text.split()[:12])} for text in documents(5, 6)])
    return place


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def three() -> list[Benchmark]:
    return [find(name) for name in ("blimp", "arc_easy", "lambada")]


def test_scores_hold_all_that_says_how_they_came_about(run, data):
    scores = evaluate_benchmarks(run, three(), data=str(data), batch_size=4)
    assert json.loads((run / "benchmarks.json").read_text())["benchmarks"] == scores
    blimp, arc, lambada = (scores[name] for name in ("blimp", "arc_easy", "lambada"))
    assert {name: group["accuracy"]["n"] for name, group in blimp["groups"].items()} == {"one": 4, "two": 2}
    assert (blimp["metrics"]["accuracy"]["n"], arc["metrics"]["accuracy_by_length"]["n"]) == (6, 9)
    assert blimp["metrics"]["accuracy"]["value"] == blimp["right"].count("1") / 6
    assert lambada["metrics"]["perplexity"]["stderr"] > 0
    settings = arc["settings"]
    digest = hashlib.sha256((data / "arc-easy" / "test.jsonl").read_bytes()).hexdigest()
    assert settings["data_sha256"] == {"test.jsonl": digest}
    assert {key: settings[key] for key in ("split", "questions", "of", "limit", "shots", "chance", "batch_size")} == {
        "split": "test",
        "questions": 9,
        "of": 9,
        "limit": None,
        "shots": 0,
        "chance": 0.25,
        "batch_size": 4,
    }
    assert (settings["dtype"], settings["device"]) == ("float32", "cpu")
    assert (arc["model"]["run"], arc["model"]["step"]) == (str(run), 2)
    is_masked = run.name == "masked"
    assert settings["scoring"] == ("pseudo" if is_masked else "continuation")
    assert lambada["settings"]["scoring"] == ("cloze" if is_masked else "continuation")


def test_the_size_of_a_batch_changes_no_score(run, data):
    first, second = (evaluate_benchmarks(run, three(), data=str(data), batch_size=size) for size in (1, 16))
    for name, one in first.items():
        assert one["right"] == second[name]["right"]
        for measure, metric in one["metrics"].items():
            assert metric["value"] == pytest.approx(second[name]["metrics"][measure]["value"], rel=1e-5)


def test_a_limit_takes_the_first_questions_of_each_group_and_says_so(causal, data):
    whole = evaluate_benchmarks(causal, [find("blimp")], data=str(data))["blimp"]
    first = evaluate_benchmarks(causal, [find("blimp")], data=str(data), limit=1)["blimp"]
    assert first["right"] == whole["right"][0] + whole["right"][4]
    assert (first["settings"]["limit"], first["settings"]["questions"], first["settings"]["of"]) == (1, 2, 6)


def test_examples_that_are_shown_have_a_name_a_seed_and_a_hash_of_their_own(causal, data):
    scores = evaluate_benchmarks(causal, [find("arc_easy")], data=str(data), shots=2, seed=3)["arc_easy-2-shot"]
    assert (scores["settings"]["shots"], scores["settings"]["seed"]) == (2, 3)
    assert set(scores["settings"]["data_sha256"]) == {"test.jsonl", "train.jsonl"}
    again = evaluate_benchmarks(causal, [find("arc_easy")], data=str(data), shots=2, seed=3)["arc_easy-2-shot"]
    assert again == scores


def test_examples_come_from_the_other_questions_where_there_is_no_file_of_them(causal, data):
    scores = evaluate_benchmarks(causal, [find("lambada")], data=str(data), shots=2)["lambada-2-shot"]
    assert scores["settings"]["shots_from"] == "the other questions"


def test_later_scores_are_added_to_the_earlier_ones_and_replace_their_own(causal, data):
    (causal / "benchmarks.json").unlink(missing_ok=True)
    for name, limit in (("blimp", 1), ("lambada", None), ("blimp", None)):
        evaluate_benchmarks(causal, [find(name)], data=str(data), limit=limit)
    kept = json.loads((causal / "benchmarks.json").read_text())["benchmarks"]
    assert (set(kept), kept["blimp"]["settings"]["limit"]) == ({"blimp", "lambada"}, None)


def test_a_bad_row_is_refused_before_anything_is_asked(causal, data, tmp_path):
    place = tmp_path / "data"
    shutil.copytree(data, place)
    (causal / "benchmarks.json").unlink(missing_ok=True)
    with (place / "lambada-openai" / "test.jsonl").open("a") as file:
        file.write('{"text": 7}\n')
    asked: list[str] = []
    with pytest.raises(UserError, match=r"test\.jsonl, line 6: the text has no last word behind a space"):
        evaluate_benchmarks(causal, three(), data=str(place), progress=lambda what, done, total: asked.append(what))
    assert (asked, (causal / "benchmarks.json").exists()) == ([], False)


def test_bias_is_read_from_the_published_table_of_pairs(run, tmp_path):
    folder = tmp_path / "crows-pairs"
    folder.mkdir()
    lines = [
        f'{n},"{text}, yes","{text}, no",stereo,{kind}'
        for n, (text, kind) in enumerate(zip(WORDS[:4], "aabb", strict=True))
    ]
    header = ",sent_more,sent_less,stereo_antistereo,bias_type"
    (folder / "crows_pairs_anonymized.csv").write_text("\n".join([header, *lines]) + "\n")
    (scores,) = evaluate_benchmarks(run, [find("crows_pairs")], data=str(tmp_path)).values()
    found = scores["metrics"]["stereotyped"]
    assert (found["n"], found["value"]) == (4, scores["right"].count("1") / 4)
    assert {name: group["stereotyped"]["n"] for name, group in scores["groups"].items()} == {"a": 2, "b": 2}


def test_progress_counts_every_continuation(causal, data):
    told: list[tuple[str, int, int]] = []
    evaluate_benchmarks(
        causal,
        three(),
        data=str(data),
        batch_size=4,
        progress=lambda what, done, total: told.append((what, done, total)),
    )
    last = {what: (done, total) for what, done, total in told}
    assert last == {"blimp": (12, 12), "arc_easy": (36, 36), "lambada": (5, 5)}


def test_a_damaged_file_of_scores_is_refused_and_kept(causal, data):
    (causal / "benchmarks.json").write_text("{")
    with pytest.raises(UserError, match=r"benchmarks\.json is damaged"):
        evaluate_benchmarks(causal, [find("lambada")], data=str(data))
    assert (causal / "benchmarks.json").read_text() == "{"
    (causal / "benchmarks.json").unlink()


def test_an_import_that_was_not_trained_is_read_as_published(causal, tmp_path):
    """Ids that the import added do not take part."""
    opened = Opened(causal)
    assert opened.model.trained_vocab_size is None
    copy = tmp_path / "copy"
    shutil.copytree(causal, copy)
    shutil.rmtree(copy / "checkpoints")
    save(copy / "checkpoints", 0, opened.model.state_dict(), {}, {}, keep=1)
    origin = Origin("there", "llama", (), {}, "fp32", 300, False, (), (), ())
    replace(RunManifest.read(copy), provenance={"imported": origin.plain()}).write(copy)
    assert Opened(copy).model.trained_vocab_size == 300
