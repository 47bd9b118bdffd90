"""lm-eval over our runs: its tasks on local copies score as our benchmarks do, and each request is answered exactly."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_corpus import WORDS, documents
from tests.builders import make_run

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.definition import find_all
from pretextlm.evaluation.benchmarks.run import Opened, evaluate_benchmarks
from pretextlm.evaluation.prompts import continue_texts
from pretextlm.model.generation import GenerationConfig

pytest.importorskip("lm_eval")

from pretextlm.evaluation.harness import HarnessModel, evaluate_harness

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Path:
    return make_run(store, tmp_path_factory.mktemp("harness") / "run", "causal")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data")

    def write(path: str, rows: list[dict]) -> None:
        (place / path).parent.mkdir(exist_ok=True)
        (place / path).write_text("".join(json.dumps(row) + "\n" for row in rows))

    texts = [text.split()[:9] for text in documents(8, 5)]
    pairs = [{"sentence_good": " ".join(words), "sentence_bad": " ".join(words[::-1])} for words in texts]
    for uid in ("adjunct_island", "transitive"):
        write(f"blimp/{uid}.jsonl", [{**pair, "UID": uid} for pair in pairs])
    numbers = range(9)
    questions = [
        {"question": " ".join(WORDS[n : n + 5]), "choices": WORDS[n : n + 4], "answer": n % 4} for n in numbers
    ]
    write("arc-easy/test.jsonl", questions)
    write("arc-challenge/test.jsonl", questions[::-1])
    truths = [
        {"question": q["question"], "mc1_targets": _targets(q, n, 1), "mc2_targets": _targets(q, n, 2)}
        for n, q in enumerate(questions)
    ]
    write("truthfulqa/validation.jsonl", truths)
    pairs = [{"sent_more": p["sentence_good"], "sent_less": p["sentence_bad"], "bias_type": "age"} for p in pairs]
    write("crows-pairs/test.jsonl", pairs)
    write("lambada-openai/test.jsonl", [{"text": " ".join(words)} for words in texts])
    return place


def _targets(question: dict, number: int, true: int) -> dict:
    """Choices of which the first is true, and in half of the questions as many as `true`."""
    labels = [1] + [int(place < true and number % 2) for place in range(1, 4)]
    return {"choices": [f"{choice}." for choice in question["choices"]], "labels": labels}


def requests(*arguments: tuple) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=one) for one in arguments]


def test_lm_evals_tasks_on_local_copies_score_as_our_benchmarks_do(run, data):
    told: list[tuple[str, int, int]] = []
    theirs = evaluate_harness(
        run,
        "blimp,lambada_openai,arc_easy",
        data=str(data),
        batch_size=4,
        progress=lambda *what: told.append(what),
    )
    ours = evaluate_benchmarks(run, find_all("blimp,lambada,arc_easy"), data=str(data), batch_size=16)
    assert set(theirs) == {"blimp_adjunct_island", "blimp_transitive", "lambada_openai", "arc_easy"}
    pairs = [(theirs["blimp_transitive"], "acc", ours["blimp"]["groups"]["transitive"], "accuracy")]
    pairs += [(theirs["arc_easy"], "acc", ours["arc_easy"]["metrics"], "accuracy")]
    pairs += [(theirs["arc_easy"], "acc_norm", ours["arc_easy"]["metrics"], "accuracy_by_length")]
    pairs += [(theirs["lambada_openai"], "acc", ours["lambada"]["metrics"], "accuracy")]
    pairs += [(theirs["lambada_openai"], "perplexity", ours["lambada"]["metrics"], "perplexity")]
    for one, name, other, same in pairs:
        assert one["metrics"][name]["value"] == pytest.approx(other[same]["value"], rel=1e-5)
        assert one["metrics"][name]["n"] == other[same]["n"]
    settings = theirs["arc_easy"]["settings"]
    assert settings["data_sha256"] == ours["arc_easy"]["settings"]["data_sha256"]
    assert list(theirs["blimp_transitive"]["settings"]["data_sha256"]) == ["transitive.jsonl"]
    assert theirs["lambada_openai"]["metrics"]["perplexity"]["better"] == "lower"
    assert told[-1][1] == told[-1][2]
    assert json.loads((run / "benchmarks.json").read_text())["harness"] == theirs


def test_choices_of_truthfulqa_arc_and_crows_pairs_score_as_in_lm_eval(run, data):
    pytest.importorskip("rouge_score", reason="lm-eval's TruthfulQA imports it")
    names = "arc_challenge,truthfulqa_mc1,truthfulqa_mc2"
    theirs = evaluate_harness(run, f"{names},crows_pairs_english", data=str(data))
    ours = evaluate_benchmarks(run, find_all(f"{names},crows_pairs"), data=str(data))
    same = [("arc_challenge", "acc", "accuracy"), ("arc_challenge", "acc_norm", "accuracy_by_length")]
    same += [("truthfulqa_mc1", "acc", "accuracy"), ("truthfulqa_mc2", "acc", "probability_of_true")]
    for task, name, own in same:
        assert theirs[task]["metrics"][name]["value"] == pytest.approx(ours[task]["metrics"][own]["value"], rel=1e-4)
        assert theirs[task]["metrics"][name]["n"] == ours[task]["metrics"][own]["n"] == 9
    assert 0 < ours["truthfulqa_mc2"]["metrics"]["probability_of_true"]["value"] < 1
    bias = theirs["crows_pairs_english"]["metrics"]["pct_stereotype"]
    own = ours["crows_pairs"]["metrics"]["stereotyped"]
    assert (bias["value"], bias["better"]) == (own["value"], own["better"])
    assert own["better"] == 0.5


def test_a_sentence_without_a_space_before_it_is_scored_as_it_is(run, data):
    spaced, bare = find_all("blimp,blimp?delimiter=")
    scores = evaluate_benchmarks(run, [spaced, bare], data=str(data))
    assert scores.keys() == {"blimp", "blimp?delimiter="}
    opened = Opened(run)
    row = json.loads((data / "blimp" / "transitive.jsonl").read_text().splitlines()[0])
    ids = tuple(opened.texts.encode(row["sentence_good"]))
    scorer = opened.scorer("auto", 4)
    assert scorer.split("", row["sentence_good"]) == ((), ids, ())
    assert scorer.split("", f" {row['sentence_good']}")[1] != ids


def test_a_masked_model_is_driven_too(store, data, tmp_path):
    run = make_run(store, tmp_path / "run", "masked")
    theirs = evaluate_harness(run, "blimp_transitive", data=str(data))["blimp_transitive"]
    ours = evaluate_benchmarks(run, find_all("blimp"), data=str(data))["blimp"]["groups"]["transitive"]
    assert theirs["metrics"]["acc"]["value"] == ours["accuracy"]["value"]
    assert theirs["settings"]["scoring"] == "pseudo"


def test_a_long_text_is_read_in_pieces_that_each_follow_as_much_as_there_is_room_for(run):
    model = HarnessModel(Opened(run), batch_size=2)
    text = documents(1, 9)[0]
    ids = tuple(model.opened.texts.encode(text))
    (whole,) = model.scorer.score_ids([((), ids)], [range(len(ids))])
    assert model.loglikelihood_rolling(requests((text,), ("",))) == pytest.approx([whole.log_likelihood, 0.0], abs=1e-4)
    size = model.scorer.max_length = len(ids) // 3 + 2
    starts = range(0, len(ids), size)
    pairs = [
        (ids[max(0, min(start + size, len(ids)) - size - 1) : start], ids[start : start + size]) for start in starts
    ]
    parts = model.scorer.score_ids(pairs, [range(len(piece)) for _, piece in pairs])
    expected = sum(part.log_likelihood for part in parts)
    assert model.loglikelihood_rolling(requests((text,))) == pytest.approx([expected], abs=1e-4)
    assert sum(map(len, [piece for _, piece in pairs])) == len(ids)


def test_what_is_written_is_greedy_text_up_to_the_first_end(run):
    model = HarnessModel(Opened(run), batch_size=2)
    opened, prompts = model.opened, [" ".join(WORDS[n : n + 3]) for n in (0, 4, 8)]
    ids = [opened.texts.encode(prompt) for prompt in prompts]
    settings = GenerationConfig(max_new_tokens=6, temperature=0.0)
    written = continue_texts(opened.model, opened.objective, opened.texts, ids, settings)
    whole = [
        opened.texts.decode([*before, *after])[len(opened.texts.decode(before)) :]
        for before, after in zip(ids, written, strict=True)
    ]
    asked = {"until": [], "max_gen_toks": 6, "do_sample": False, "temperature": 0.7}
    assert model.generate_until(requests(*((prompt, asked) for prompt in prompts))) == whole
    end = whole[0].strip()[1:3]
    cut = model.generate_until(requests((prompts[0], {**asked, "until": [end]})))
    assert cut == [whole[0].split(end)[0]]


def test_log_likelihoods_keep_the_order_of_the_requests_and_do_not_depend_on_the_batch(run):
    rng = np.random.default_rng(0)
    pairs = [(" ".join(rng.choice(WORDS, rng.integers(0, 12))), f" {word}") for word in rng.choice(WORDS, 20)]
    first, second = (HarnessModel(Opened(run), batch_size=size).loglikelihood(requests(*pairs)) for size in (1, 16))
    alone = [HarnessModel(Opened(run)).loglikelihood(requests(pair))[0] for pair in pairs[:3]]
    assert [log for log, _ in first] == pytest.approx([log for log, _ in second], abs=1e-5)
    assert [log for log, _ in first[:3]] == pytest.approx([log for log, _ in alone], abs=1e-5)


def test_unknown_tasks_are_refused_with_a_near_name(run, data):
    with pytest.raises(UserError, match="lm-eval has no task named 'arc_eesy'") as caught:
        evaluate_harness(run, "arc_eesy", data=str(data))
    assert "arc_easy" in caught.value.hint
