"""Compression of a fine-tuned run: the scores of its task before and after, on the same records."""

from __future__ import annotations

import json

import pytest
from tests.builders import make_store, sentences

from pretextlm.compression.prune import Pruning, prune_run
from pretextlm.compression.quantized import export_quantized
from pretextlm.evaluation.task_evaluation import evaluate_task
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small BERT, trained to tell texts by their first words."""
    place = tmp_path_factory.mktemp("tuned")
    texts = [("ship sail " if n % 2 else "old river ") + text for n, text in enumerate(sentences(64, seed=3))]
    records = place / "records.jsonl"
    lines = (json.dumps({"text": text, "label": "ship" if n % 2 else "river"}) for n, text in enumerate(texts))
    records.write_text("\n".join(lines))
    store = make_store(place / "store")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    values = {
        "data": {"train": str(records), "validation": str(records), "length": 48, "tokenizer": str(store.path)},
        "model": {"preset": "bert-base-uncased", **shape},
        "task": {"name": "text_classification"},
        "training": {"budget_steps": 30, "batch_rows": 16, "learning_rate": 3e-3, "dtype": "fp32", "compile": "off"},
    }
    return pretrain(Recipe.load(values), place / "run")


def test_the_scores_of_a_pruned_run_are_those_of_its_evaluation(run, tmp_path):
    done = prune_run(run.directory, tmp_path / "pruned", Pruning(sparsity=0.97, channels=0.5))
    scores = done["scores"]["accuracy"]
    before = evaluate_task(run)["metrics"]["accuracy"]
    after = evaluate_task(type(run).open(tmp_path / "pruned"))["metrics"]["accuracy"]
    assert scores == {"before": before, "after": after}
    assert before["value"] > 0.9
    assert before["value"] != after["value"], "the cut is deep enough to be seen"


def test_the_scores_of_a_quantised_run_are_in_its_model_card(run, tmp_path):
    done = export_quantized(run.directory, tmp_path / "int8")
    before = evaluate_task(run)["metrics"]["accuracy"]["value"]
    assert done.comparison["scores"]["accuracy"]["before"]["value"] == before
    assert f"accuracy before {before:.4f}" in (tmp_path / "int8" / "README.md").read_text()
