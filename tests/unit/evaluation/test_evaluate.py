"""A run is evaluated into evaluation.json and samples.jsonl, and a wrong run or store is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_corpus import random_model, write_store
from tests.builders import replace_tokenizer
from tests.foreign import bert_directory

from pretextlm.batch import Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.prompts import continue_texts
from pretextlm.evaluation.trained_model import open_scorer, open_trained
from pretextlm.hf.import_model import import_model
from pretextlm.model.generation import GenerationConfig
from pretextlm.model.model_inputs import prepare
from pretextlm.objectives.registry import OBJECTIVES, build
from pretextlm.report import glossary
from pretextlm.scoring.token_texts import TokenTexts
from pretextlm.training import validation
from pretextlm.training.forward import Forward
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.validation import validate

BENCHMARK = {"blank_exact_match", "blank_choice_accuracy", "blank_log_likelihood"}
HIDDEN = {"loss", "fill_accuracy", "pseudo_perplexity"}
PAIR = {"lm_loss", "pair_loss", "pair_accuracy"}
OWN = {
    "causal": {"loss", "perplexity", "bits_per_byte"},
    "masked": HIDDEN,
    "span_corruption": {"loss", "token_accuracy", "span_exact_match"},
    "prefix": {"loss", "perplexity"},
    "denoisers": {"loss", "token_accuracy", "span_exact_match"},
    "next_sentence": HIDDEN | PAIR,
    "sentence_order": HIDDEN | PAIR,
    "word_structure": HIDDEN | {"lm_loss", "order_loss"},
    "span_boundary": HIDDEN | {"lm_loss", "span_boundary_loss"},
    "replaced_token": {"loss", "lm_loss", "replaced_loss", "replaced_accuracy", "replaced_auc", "generator_accuracy"},
    "denoising": {"loss", "token_accuracy"},
    "masked_sequence": {"loss", "perplexity", "token_accuracy"},
    "mixed_visibility": HIDDEN,
    "permutation": {"loss", "token_accuracy", "pseudo_perplexity"},
    "fill_in_middle": {"loss", "perplexity"},
    "bimodal_code": HIDDEN,
    "text_to_text": {"loss", "token_accuracy", "span_exact_match"},
    "distillation": HIDDEN,
}
CONTINUE_NO_TEXT = {
    "masked",
    "next_sentence",
    "sentence_order",
    "word_structure",
    "span_boundary",
    "replaced_token",
    "masked_sequence",
    "permutation",
    "bimodal_code",
    "distillation",
}


def train(store, objective: str, directory: Path, **options: object) -> Path:
    recipe = Recipe.load(
        {
            "data": {"store": str(store.path), "length": 32},
            "objective": {"name": objective, **options},
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "compile": "off", "validations": 0},
            "evaluation": {"blanks": 8, "prompts": 2, "documents": 3},
        }
    )
    pretrain(recipe, directory)
    return directory


def train_any(objective: str, store, pair_store, directory: Path) -> Path:
    """A run of any objective; the teacher of a distilled one is gone when it ends."""
    if objective in ("bimodal_code", "text_to_text"):
        return train(pair_store, objective, directory)
    if objective != "distillation":
        return train(store, objective, directory)
    teacher = train(store, "masked", directory.with_name("teacher"))
    train(store, objective, directory, teacher=str(teacher))
    shutil.rmtree(teacher)
    return directory


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_evaluated_run_holds_metrics_with_n_and_samples(store, pair_store, objective, tmp_path):
    run = train_any(objective, store, pair_store, tmp_path / "run")
    told: list[str] = []
    returned = evaluate(run, progress=told.append)
    written = json.loads((run / "evaluation.json").read_text())
    assert written == returned
    assert [note for note in written.get("notes", []) if "keep their shares" not in note] == []
    assert ("notes" in written) == (objective == "text_to_text")
    assert set(written["metrics"]) == OWN[objective] | BENCHMARK
    assert set(written["metrics"]) <= set(glossary.known_measures())
    for metric in written["metrics"].values():
        assert set(metric) == {"value", "n", "stderr", "unit", "better"}
        assert metric["n"] > 0
        assert metric["better"] in ("lower", "higher")
        assert math.isfinite(metric["value"])
        assert metric["unit"] != "share" or 0 <= metric["value"] <= 1
    samples = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
    kinds = [sample["kind"] for sample in samples]
    assert kinds.count("blank") == 8
    assert kinds.count("prompt") == (0 if objective in CONTINUE_NO_TEXT else 2)
    assert written["settings"]["documents"] == 3
    assert told


@pytest.mark.parametrize("objective", ["causal", "replaced_token"])
def test_evaluating_again_gives_the_same_bytes(store, objective, tmp_path):
    run = train(store, objective, tmp_path / "run")
    files = [run / "evaluation.json", run / "samples.jsonl"]
    evaluate(run)
    first = [file.read_bytes() for file in files]
    evaluate(run)
    assert [file.read_bytes() for file in files] == first


def test_a_model_that_fills_no_blanks_has_its_own_measures_and_says_why(store, pair_store, tmp_path):
    run = train(store, "next_sentence", tmp_path / "pairs", inner="off")
    evaluated = evaluate(run)
    assert set(evaluated["metrics"]) == {"loss", "pair_accuracy"}
    assert evaluated["settings"]["blanks"] == 0
    assert "next_sentence with these options does not fill any" in evaluated["notes"][0]
    assert (run / "samples.jsonl").read_text() == ""
    with pytest.raises(UserError, match="does not fill blanks"):
        open_scorer(Run.open(run))
    run = train(pair_store, "text_to_text", tmp_path / "text", unsupervised=0.0)
    assert set(evaluate(run)["metrics"]) == {"loss", "token_accuracy"}


def test_an_objective_without_a_row_in_the_held_out_text_is_asked_the_blanks_alone(store, pair_store, tmp_path):
    run = train(pair_store, "bimodal_code", tmp_path / "run")
    evaluated = evaluate(run, store=store.path)  # the same tokenizer, but no pairs
    assert set(evaluated["metrics"]) == BENCHMARK
    assert "no measures of its own" in evaluated["notes"][0]


@pytest.mark.parametrize("layout", ["encoder_decoder", "prefix"])
def test_a_text_to_text_model_writes_the_target_of_a_prompt(store, layout):
    objective = build("text_to_text", {"unsupervised": 0.0, "layout": layout})
    model, texts = random_model(objective, store), TokenTexts(store.tokenizer, store.vocabulary)
    prompt = texts.encode("Bamon domon")
    settings = GenerationConfig(max_new_tokens=5, temperature=0, stop=())
    (answer,) = continue_texts(model, objective, texts, [prompt], settings)
    assert len(answer) == 5
    for place, token in enumerate(answer):
        logits = next_logits(model, texts.vocabulary, [*prompt, texts.vocabulary.eos], answer[:place])
        assert token == int(logits.argmax())


@torch.inference_mode()
def next_logits(model, v, source: list[int], written: list[int]) -> torch.Tensor:
    """Scores of the next token of the target, all special tokens left out, by reading everything anew."""
    if model.encoder is None:
        ids = np.array([[*source, *written]], np.int32)
        batch = Batch(input_ids=ids, prefix=np.full_like(ids, len(source)), attention="prefix")
    else:
        batch = Batch(np.array([source], np.int32), decoder_input_ids=np.array([[v.pad, *written]], np.int32))
    hidden = model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD
    logits = model.logits(hidden[0, -1])
    logits[list(v.special)] = float("-inf")
    return logits


def test_a_model_that_does_not_go_on_from_a_text_says_so(store, tmp_path):
    model, objective, texts = open_trained(Run.open(train(store, "masked", tmp_path / "masked")))
    with pytest.raises(UserError, match="does not continue texts"):
        continue_texts(model, objective, texts, [[120]], GenerationConfig())


def test_a_model_of_running_text_is_measured_on_the_plain_documents_of_a_store_with_pairs(store, pair_store, tmp_path):
    run = train(store, "causal", tmp_path / "run")
    plain, mixed = evaluate(run), evaluate(run, store=pair_store.path)
    assert mixed["metrics"] == plain["metrics"]
    assert mixed["settings"]["documents_total"] == 40
    pairs = write_store(tmp_path / "pairs", with_pairs=True, with_plain=False)
    with pytest.raises(UserError, match="All documents are pairs"):
        evaluate(run, store=pairs.path)


def test_a_store_of_another_tokenizer_is_refused(store, tmp_path):
    run = train(store, "causal", tmp_path / "run")
    other = write_store(tmp_path / "other")
    evaluate(run, store=other.path)  # the same text gives the same tokenizer
    changed = json.loads((other.path / "tokenizer.json").read_text()) | {"normalizer": {"type": "Lowercase"}}
    replace_tokenizer(other.path, changed)
    with pytest.raises(UserError, match="another tokenizer"):
        evaluate(run, store=other.path)


def test_an_imported_run_has_no_store_of_its_own(tmp_path):
    import_model(str(bert_directory(tmp_path / "published")), tmp_path / "run")
    with pytest.raises(UserError, match="has no store of its own"):
        evaluate(tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a run directory"):
        evaluate(tmp_path)


@pytest.mark.parametrize("objective", ["causal", "masked", "span_corruption"])
def test_the_validate_is_the_same_in_batches_of_any_size(store, objective, monkeypatch):
    built = build(objective)
    model = random_model(built, store)
    v = store.vocabulary
    reader = built.reader(store.validation, v, 32)
    forward = Forward(model, built, torch.device("cpu"), torch.float32)

    def measure(rows: int = 20, seed: int = 7):
        return validate(forward, reader, built, v, rows, seed).terms["lm"]

    model.train()
    whole = measure()
    assert model.training
    assert whole.mean == pytest.approx(whole.total / whole.count)
    assert measure(10**6).count >= whole.count
    if objective != "causal":
        assert measure(seed=8).total != whole.total
    monkeypatch.setattr(validation, "TOKENS_AT_ONCE", 1)
    assert measure().count == whole.count
    assert measure().total == pytest.approx(whole.total, rel=1e-5)
