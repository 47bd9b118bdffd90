"""Fine-tuned models: heads and label names of published classes there and back, with transformers' logits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tests.parity.encoders import CLOSE
from tests.parity.families import exported_alike, our_states
from tests.parity.fine_tuned import (
    NAMES,
    PAIRS,
    ROWS,
    STILL,
    TASK_CLASSES,
    TEXTS,
    foreign,
    ours_of,
    published,
    tuned,
)

from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.hf.export_model import export_model
from pretextlm.hf.import_model import import_model
from pretextlm.hf.provenance import origin_of
from pretextlm.training.run_directory import Run

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

IDS = [[2, 9, 11, 7, 3, 14, 15, 3], [2, 12, 8, 6, 3, 0, 0, 0]]
LENGTHS = [8, 5]
CASES = [(family, kind) for family, kinds in TASK_CLASSES.items() for kind in kinds]


def their_scores(model, ids):
    """(C,) of a text, or of the one choice there is, or (T, C) of its tokens."""
    choice = type(model).__name__.endswith("ForMultipleChoice")
    with torch.inference_mode():
        found = model(input_ids=torch.tensor([[ids]] if choice else [ids]))
    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], -1)[0]
    return found.logits[0]


def our_scores(model, kind, states_TD):
    """The same from the states of one text."""
    place = -1 if model.config.architecture == "decoder" else 0
    with torch.inference_mode():
        return model.heads["task"](states_TD[place] if kind in ("sequence", "choice") else states_TD)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(case))
def carried(request, tmp_path_factory):
    family, kind = request.param
    place = tmp_path_factory.mktemp(f"{family}-{kind}")
    model = foreign(family, kind, place / "theirs")
    run = import_model(str(place / "theirs"), place / "run")
    origin = origin_of(run.directory)
    return model, run, origin, kind, place


def test_an_import_has_the_head_and_the_label_names(carried):
    _, run, origin, kind, _ = carried
    assert (
        run.recipe.training_objective.name
        == {
            "sequence": "text_classification",
            "choice": "multiple_choice",
            "token": "token_classification",
            "span": "question_answering",
        }[kind]
    )
    assert kind in ("choice", "span") or run.recipe.training_objective.labels == tuple(NAMES.values())
    assert origin.not_carried == ()
    assert not [name for name in origin.drawn if name.startswith("heads.")]


def test_padded_and_packed_rows_have_transformers_logits(carried):
    model, run, _, kind, _ = carried
    ours = run.load_model()
    attention = "causal" if ours.config.architecture == "decoder" else "bidirectional"
    positions = [[*range(n), *[0] * (8 - n)] for n in LENGTHS]
    padded = our_states(
        ours,
        input_ids=IDS,
        segment_ids=[[0] * n + [-1] * (8 - n) for n in LENGTHS],
        position_ids=positions,
        attention=attention,
    )
    packed = our_states(
        ours,
        input_ids=[IDS[0] + IDS[1][:5] + [0] * 3],
        segment_ids=[[0] * 8 + [1] * 5 + [-1] * 3],
        position_ids=[[*range(8), *range(5), 0, 0, 0]],
        attention=attention,
    )[0]
    packed = [packed[:8], packed[8:13]]
    for row, length in enumerate(LENGTHS):
        expected = their_scores(model, IDS[row][:length])
        for states in (padded[row][:length], packed[row]):
            torch.testing.assert_close(our_scores(ours, kind, states), expected, **CLOSE)


def test_an_export_gives_back_the_same_bytes_and_names(carried, tmp_path):
    model, run, _, kind, place = carried
    again = exported_alike(run, model, place / "theirs", tmp_path / "out")
    assert kind in ("choice", "span") or again.config.id2label == NAMES


@pytest.mark.parametrize("family", ["bert", "electra", "distilbert", "deberta-v2", "llama", "gpt2"])
def test_a_tuned_run_of_texts_is_exported_as_the_familys_class_with_its_tokenizer(family, tmp_path):
    pair = {"text_pair": "pair"} if family in ("bert", "electra") else {}
    run = tuned(tmp_path, published(family, tmp_path), {"name": "text_classification", **pair})
    done = export_model(run.directory, tmp_path / "out")
    assert done.architecture == TASK_CLASSES[family]["sequence"].theirs
    assert done.lost == ()
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "bad", 1: "good", 2: "so so"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = (TEXTS, PAIRS) if pair else (TEXTS,)
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch).logits.softmax(1).numpy()
    np.testing.assert_allclose(ours_of(run)[0], expected, atol=1e-4)


def test_a_regressions_mean_and_spread_are_in_the_exported_head(tmp_path):
    run = tuned(tmp_path, published("bert", tmp_path), {"name": "text_regression"})
    export_model(run.directory, tmp_path / "out")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert (model.config.problem_type, model.config.num_labels) == ("regression", 1)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        expected = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits[:, 0].numpy()
    np.testing.assert_allclose(ours_of(run)[0], expected, atol=1e-4)
    back = import_model(str(tmp_path / "out"), tmp_path / "back")
    records = run.recipe.data.validation
    found, wanted = (evaluate_task(one, records)["metrics"]["pearson"]["value"] for one in (back, run))
    assert found == pytest.approx(wanted, abs=1e-4)
    renamed = tmp_path / "renamed.jsonl"
    renamed.write_text(
        "".join(json.dumps({"says": r["text"], "score": r["label"]}) + "\n" for r in ROWS["text_regression"])
    )
    again = evaluate_task(back, f"{renamed}?text=says&label=score")["metrics"]["pearson"]["value"]
    assert again == found
    with pytest.raises(UserError, match="has no column for 'tags'"):
        evaluate_task(back, f"{renamed}?tags=says")


def test_tags_and_stretches_are_those_of_transformers(tmp_path):
    start = published("bert", tmp_path)
    (tmp_path / "tags").mkdir()
    (tmp_path / "qa").mkdir()
    run = tuned(tmp_path / "tags", start, {"name": "token_classification"})
    assert export_model(run.directory, tmp_path / "tags/out").architecture == "BertForTokenClassification"
    model = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "tags/out")
    assert model.config.id2label == {0: "O", 1: "B-X"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tags/out")
    batch = tokenizer([text.split() for text in TEXTS], is_split_into_words=True, padding=True, return_tensors="pt")
    with torch.inference_mode():
        tags = model(**batch).logits.argmax(-1)
    found = []
    for row in range(len(TEXTS)):
        words = batch.word_ids(row)
        found += [int(tags[row, t]) for t, w in enumerate(words) if w is not None and w != words[t - 1]]
    assert found == ours_of(run)[0].argmax(-1).tolist()

    run = tuned(tmp_path / "qa", start, {"name": "question_answering"})
    assert export_model(run.directory, tmp_path / "qa/out").architecture == "BertForQuestionAnswering"
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "qa/out")
    batch = tokenizer(PAIRS, TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**batch)
    none = (scores.start_logits[:, 0] + scores.end_logits[:, 0]).numpy()
    np.testing.assert_allclose(ours_of(run)[0][:, 3], none, atol=1e-4)


def test_a_start_carries_the_head_of_the_same_task_where_the_labels_agree(tmp_path):
    first = tuned(tmp_path, published("bert", tmp_path), {"name": "text_classification"})
    other = {name: tmp_path / name for name in ("same", "renamed")}
    for place in other.values():
        place.mkdir()
    head = {name: t for name, t in first.load_model().state_dict().items() if name.startswith("heads.task.")}

    def begun(run):
        weights = run.load_model().state_dict()
        return {name: torch.allclose(weights[name], tensor, rtol=0, atol=1e-9) for name, tensor in head.items()}

    same = tuned(other["same"], first.directory, {"name": "text_classification"}, **STILL)
    assert set(begun(same).values()) == {True}
    labels = {"name": "text_classification", "labels": ["good", "so so", "bad"]}
    renamed = tuned(other["renamed"], first.directory, labels, **STILL)
    assert not begun(renamed)["heads.task.out.weight"]


def test_a_started_regression_says_the_same_numbers_in_another_unit(tmp_path):
    first = tuned(tmp_path, published("bert", tmp_path), {"name": "text_regression"})
    (tmp_path / "next").mkdir()
    rows = {"text_regression": [{**row, "label": 10 * row["label"]} for row in ROWS["text_regression"]]}
    before = ours_of(first)[0]
    run = tuned(tmp_path / "next", first.directory, {"name": "text_regression"}, rows, **STILL)
    assert run.recipe.training_objective.spread == pytest.approx(10 * first.recipe.training_objective.spread)
    np.testing.assert_allclose(ours_of(run)[0], before, atol=1e-4)


def test_a_published_pooler_begins_the_head(tmp_path):
    start = published("bert", tmp_path)
    run = tuned(tmp_path, start, {"name": "text_classification"}, **STILL)
    pooler = Run.open(start).load_model().state_dict()["head_layers.pooler.weight"]
    assert torch.equal(run.load_model().state_dict()["heads.task.dense.weight"], pooler)


def test_what_a_class_cannot_hold_is_refused_by_name(tmp_path):
    start = published("llama", tmp_path)
    run = tuned(tmp_path, start, {"name": "text_regression"})
    with pytest.raises(UserError, match="LlamaForSequenceClassification adds no constant"):
        export_model(run.directory, tmp_path / "out", family="llama")
    (tmp_path / "tanh").mkdir()
    run = tuned(tmp_path / "tanh", start, {"name": "text_classification", "head": "tanh"})
    with pytest.raises(UserError, match="has a head of the make 'plain'; this run's is 'tanh'"):
        export_model(run.directory, tmp_path / "out", family="llama")
