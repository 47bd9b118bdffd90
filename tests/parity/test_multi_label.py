"""Multi-label classification: its loss and probabilities are transformers', exported and imported again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import make_store, sentences
from tests.parity.families import randomised

import pretextlm as pt
from pretextlm.errors import UserError
from pretextlm.evaluation.scores.table import SCORES
from pretextlm.hf.import_model import import_model
from pretextlm.training.recipe import Recipe

TEXTS = sentences(24, seed=5)
LABELS = [[name for name, every in (("even", 2), ("third", 3)) if n % every == 0] for n in range(24)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("multi")
    records = place / "records.csv"
    records.write_text(
        "text,label\n" + "".join(f'"{t}",{";".join(names)}\n' for t, names in zip(TEXTS, LABELS, strict=True))
    )
    values = {
        "data": {"train": str(records), "validation": str(records), "length": 48},
        "task": {"name": "multi_label_classification", "separator": ";"},
        "model": {"preset": "bert-base-uncased", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
        "training": {"budget_steps": 4, "batch_rows": 8, "learning_rate": 3e-3, "dtype": "fp32", "compile": "off"},
    }
    values["data"]["tokenizer"] = str(make_store(place / "store").path)
    return pt.finetune(Recipe.load(values), place / "run")


def theirs(directory):
    transformers = pytest.importorskip("transformers", reason="the reference (extra hub)")
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory).eval()
    return transformers, tokenizer, model


def test_an_export_gives_the_same_probabilities_and_loss_in_transformers(run, tmp_path):
    pt.export_model(run, tmp_path / "hf")
    transformers, tokenizer, model = theirs(tmp_path / "hf")
    pipeline = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    for found, expected in zip(pt.predict(run, TEXTS[:8]), pipeline(TEXTS[:8]), strict=True):
        assert found["probabilities"] == pytest.approx({one["label"]: one["score"] for one in expected}, abs=1e-5)
        assert found["answer"] == [name for name, p in found["probabilities"].items() if p >= 0.5]
    given = torch.tensor([[float(name in names) for name in ("even", "third")] for names in LABELS])
    loss = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), labels=given).loss
    validation = [line for line in run.metrics() if line["kind"] == "validation"][-1]
    assert validation["loss"] == pytest.approx(loss.item(), rel=1e-4)
    again = import_model(tmp_path / "hf", tmp_path / "again")
    assert again.recipe.task == run.recipe.task.model_copy(update={"label": "label", "separator": ","})
    assert pt.predict(again, TEXTS[:8]) == pt.predict(run, TEXTS[:8])


def test_a_published_model_keeps_its_head(tmp_path):
    transformers = pytest.importorskip("transformers", reason="the reference (extra hub)")
    from tests.foreign import bert_directory

    place = bert_directory(tmp_path / "bert")
    config = transformers.BertConfig.from_pretrained(place, problem_type="multi_label_classification", num_labels=3)
    randomised(transformers.BertForSequenceClassification(config)).save_pretrained(place)
    _, tokenizer, model = theirs(place)
    run = import_model(place, tmp_path / "run")
    texts = ["the old river", "a ship sails.", "the"]
    with torch.inference_mode():
        expected = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.sigmoid().numpy()
    found = [list(one["probabilities"].values()) for one in pt.predict(run, texts)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scores_are_scikit_learns(run):
    from sklearn.metrics import accuracy_score, f1_score
    from sklearn.preprocessing import MultiLabelBinarizer

    scores = pt.evaluate(run)["metrics"]
    encoder = MultiLabelBinarizer().fit([["even", "third"]])
    found, expected = (encoder.transform(one) for one in ([one["answer"] for one in pt.predict(run, TEXTS)], LABELS))
    for name, average in (("multi_label_f1_micro", "micro"), ("multi_label_f1_macro", "macro")):
        assert scores[name]["value"] == pytest.approx(f1_score(expected, found, average=average, zero_division=0))
    assert scores["subset_accuracy"]["value"] == pytest.approx(accuracy_score(expected, found))
    example = ([["joy"], ["joy", "anger"]], [[], ["joy", "anger"]])
    assert SCORES["multi_label_f1_micro"](*example).value == pytest.approx(0.8)
    assert SCORES["multi_label_f1_macro"](*example).value == pytest.approx(5 / 6)


def test_a_label_that_training_did_not_have_is_refused_by_its_row(run, tmp_path):
    (tmp_path / "other.jsonl").write_text('{"text": "a", "label": ["even"]}\n{"text": "b", "label": ["evne"]}\n')
    with pytest.raises(UserError, match="2: the label 'evne' is none of even, third"):
        pt.evaluate(run, store=tmp_path / "other.jsonl")
