"""A run is evaluated into evaluation.json and samples.jsonl, and a wrong run or store is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_corpus import random_filler, write_store

from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate_run
from pretextlm.training import validation
from pretextlm.training.forward import Forward
from pretextlm.training.recipe import Recipe
from pretextlm.training.trainer import pretrain
from pretextlm.training.validation import validate

RULER = {"blank_exact_match", "blank_choice_accuracy", "blank_log_likelihood"}
OWN = {
    "causal": {"loss", "perplexity", "bits_per_byte"},
    "masked": {"loss", "fill_accuracy", "pseudo_perplexity"},
    "span_corruption": {"loss", "token_accuracy", "span_exact_match"},
}


def train(store, objective: str, directory: Path) -> Path:
    recipe = Recipe.load(
        {
            "data": {"store": str(store.path), "length": 32},
            "objective": {"name": objective},
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 0},
            "evaluation": {"blanks": 8, "prompts": 2, "documents": 3},
        }
    )
    pretrain(recipe, directory)
    return directory


@pytest.mark.parametrize("objective", OWN)
def test_an_evaluated_run_holds_metrics_with_n_and_samples(store, objective, tmp_path):
    run = train(store, objective, tmp_path / "run")
    told: list[str] = []
    returned = evaluate_run(run, progress=told.append)
    written = json.loads((run / "evaluation.json").read_text())
    assert written == returned
    assert set(written["metrics"]) == OWN[objective] | RULER
    for metric in written["metrics"].values():
        assert set(metric) == {"value", "n", "stderr", "unit", "better"}
        assert metric["n"] > 0
        assert metric["better"] in ("lower", "higher")
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    kinds = [sample["kind"] for sample in samples]
    assert kinds.count("blank") == 8
    assert kinds.count("prompt") == (0 if objective == "masked" else 2)
    assert written["settings"]["documents"] == 3
    assert told
    first = (run / "evaluation.json").read_bytes(), (run / "samples.jsonl").read_bytes()
    evaluate_run(run)
    assert ((run / "evaluation.json").read_bytes(), (run / "samples.jsonl").read_bytes()) == first


def test_a_store_of_another_tokenizer_is_refused(store, tmp_path):
    run = train(store, "causal", tmp_path / "run")
    other = write_store(tmp_path / "other")
    evaluate_run(run, store=other.path)  # the same text gives the same tokenizer
    (other.path / "tokenizer.json").write_text((other.path / "tokenizer.json").read_text() + "\n")
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate_run(run, store=other.path)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        evaluate_run(tmp_path)


@pytest.mark.parametrize("objective", OWN)
def test_the_validate_is_the_same_in_batches_of_any_size(store, objective, monkeypatch):
    filler = random_filler(objective, store)
    v = store.vocabulary
    reader = filler.objective.reader(store.validation, v, 32)
    forward = Forward(filler.model, filler.objective, torch.device("cpu"), torch.float32)

    def measure(rows: int = 20, seed: int = 7):
        return validate(forward, reader, filler.objective, v, rows, seed).terms["lm"]

    filler.model.train()
    whole = measure()
    assert filler.model.training
    assert whole.mean == pytest.approx(whole.total / whole.count)
    assert measure(10**6).count >= whole.count
    if objective != "causal":
        assert measure(seed=8).total != whole.total
    monkeypatch.setattr(validation.evaluation_batches, "__defaults__", (1,))
    assert measure().count == whole.count
    assert measure().total == pytest.approx(whole.total, rel=1e-5)
