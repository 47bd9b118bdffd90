"""Sentence embeddings: the loss is the formula's over the whole step, and a text's point is its own alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import sentences

from pretextlm.data.examples import ExampleReader
from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task, predictions
from pretextlm.model.model_inputs import prepare
from pretextlm.tasks.sentence_embedding import known_positives
from pretextlm.training.corpus import open_corpus
from pretextlm.training.plan import make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.run_start import build_model

CPU = torch.device("cpu")
A, B, C = (sentences(16, seed=seed) for seed in (1, 2, 3))
PAIRS = [{"anchor": a, "positive": b, "negative": c} for a, b, c in zip(A, B, C, strict=True)]
SCORED = [{"sentence1": a, "sentence2": b, "score": n % 6} for n, (a, b) in enumerate(zip(A, B, strict=True))]
TASK = {"name": "sentence_embedding"}
HARD = {**TASK, "negative": "negative"}
JUDGED = {**TASK, "score": "score"}


def opened(recipe):
    recipe, corpus = open_corpus(recipe)
    return recipe, corpus, build_model(recipe, CPU).eval()


def batch_of(recipe, corpus, split="train", numbers=None):
    examples = getattr(corpus, split)
    numbers = np.arange(len(examples)) if numbers is None else np.asarray(numbers)
    rows = ExampleReader(examples).read(numbers, np.zeros_like(numbers), 0)
    return recipe.training_objective.collate(rows, recipe.vocabulary(corpus), None)


def outputs_of(model, batch):
    return model(prepare(batch, model.config, CPU, torch.float32))


def point(model, recipe, corpus, text):
    """Of a text by itself, by the definition."""
    from pretextlm.batch import Batch
    from pretextlm.data.tokenizer import load_tokenizer

    vocabulary = recipe.vocabulary(corpus)
    ids = OffsetTokenizer(load_tokenizer(corpus.path / "tokenizer.json")).encode([text]).tokens
    batch = Batch(input_ids=np.array([[vocabulary.cls, *ids, vocabulary.sep]], np.int32))
    mean = outputs_of(model, batch).hidden_BTD[0].mean(0).detach()
    return mean / mean.norm()


@pytest.mark.parametrize("task", [TASK, HARD])
def test_the_loss_is_the_formulas_over_all_texts_of_the_step(recipe, written, task):
    whole, corpus, model = opened(recipe(task, written(PAIRS)))
    batch = batch_of(whole, corpus)
    term = whole.training_objective.terms(outputs_of(model, batch), batch)["contrast"]
    assert whole.training_objective.counts(batch) == {"contrast": 16} == {"contrast": term.count}
    anchors, positives, negatives = (
        torch.stack([point(model, whole, corpus, text) for text in texts]) for texts in (A, B, C)
    )
    others = torch.cat([positives, negatives]) if "negative" in task else positives
    scores = (anchors @ others.T) / 0.05
    expected = -scores.log_softmax(1).diagonal().sum()
    assert term.total.item() == pytest.approx(expected.item(), rel=1e-4)
    assert term.correct.item() == (scores.argmax(1) == torch.arange(16)).sum()


def test_a_text_is_no_negative_of_an_anchor_whose_positive_it_is(recipe, written):
    same = [{**pair, "positive": "The same."} for pair in PAIRS]
    whole, corpus, model = opened(recipe(TASK, written(same)))
    batch = batch_of(whole, corpus)
    assert whole.training_objective.terms(outputs_of(model, batch), batch)["contrast"].total.item() == 0.0


def test_texts_of_an_example_do_not_see_each_other(recipe, written):
    whole, corpus, model = opened(recipe(HARD, written(PAIRS)))
    found = whole.training_objective.embeddings(outputs_of(model, batch_of(whole, corpus)), batch_of(whole, corpus))
    for place, text in ((0, A[5]), (1, B[5]), (2, C[5])):
        assert torch.allclose(found[5, place], point(model, whole, corpus, text), atol=1e-5)


def test_a_point_does_not_depend_on_what_is_computed_with_it(recipe, written, tmp_path):
    run = pretrain(recipe(TASK, written(PAIRS)), tmp_path / "run")
    _, corpus = open_corpus(run.recipe)
    model, task = run.load_model(), run.recipe.training_objective
    together = predictions(model, task, corpus.train, run)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    for index in (0, 9, 15):
        alone = task.examples(corpus.records[0].take([index]), encoder, model.config, 48)
        assert predictions(model, task, alone, run)[0] == pytest.approx(together[index], abs=1e-6)


def test_a_step_is_one_pass_and_a_smaller_one_is_refused_by_name(recipe, written):
    chosen, corpus = open_corpus(recipe(TASK, written(PAIRS), batch_rows=300))
    plan = make_plan(chosen, corpus, CPU)
    assert plan.micro_rows == plan.rows == 300
    with pytest.raises(UserError, match=r"sentence_embedding.*one pass"):
        make_plan(*open_corpus(recipe(TASK, written(PAIRS), micro_batch_tokens=64)), CPU)


def test_scores_are_compared_with_cosines(recipe, written, tmp_path):
    train, validation = written(PAIRS, "train.jsonl"), written(SCORED, "dev.jsonl")
    run = pretrain(recipe(JUDGED, train, validation), tmp_path / "run")
    _, corpus = open_corpus(run.recipe)
    assert corpus.validation.labels[:6] == pytest.approx(np.arange(6) / 5)
    found = evaluate_task(run)
    assert set(found["metrics"]) == {"spearman", "pearson"}
    model = run.load_model()
    cosines = [float(point(model, run.recipe, corpus, a) @ point(model, run.recipe, corpus, b)) for a, b in zip(A, B)]
    expected = np.corrcoef(cosines, [n % 6 for n in range(16)])[0, 1]
    assert found["metrics"]["pearson"]["value"] == pytest.approx(expected, abs=1e-5)
    batch = batch_of(run.recipe, corpus, "validation")
    term = run.recipe.training_objective.terms(outputs_of(model, batch), batch)["score"]
    assert term.total.item() == pytest.approx(((np.array(cosines) - corpus.validation.labels) ** 2).sum(), rel=1e-4)


def test_training_brings_each_anchor_nearest_to_its_own_positive(recipe, written, tmp_path):
    distinct = [{"anchor": a, "positive": b} for a, b in zip(dict.fromkeys(A), dict.fromkeys(B), strict=False)]
    chosen = recipe(TASK, written(distinct), batch_rows=16, budget_steps=40, learning_rate=3e-3, validations=0)
    metric = evaluate_task(pretrain(chosen, tmp_path / "run"))["metrics"]["accuracy"]
    assert metric["n"] == len(distinct)
    assert metric["value"] > 0.9


@pytest.mark.parametrize(
    ("task", "train", "validation", "told"),
    [
        (
            TASK,
            [*PAIRS, {"anchor": "a", "positive": ""}],
            PAIRS,
            "train.jsonl, line 17: the column 'positive' is empty",
        ),
        (TASK, [*PAIRS, {"anchor": 3, "positive": "a"}], PAIRS, "line 17: the column 'anchor' is 3"),
        (HARD, [*PAIRS, {"anchor": "a", "positive": "b"}], PAIRS, "line 17: no column 'negative'"),
        (TASK, PAIRS[:1], PAIRS, "has one pair"),
        (
            JUDGED,
            PAIRS,
            [*SCORED, {**SCORED[0], "score": "high"}],
            "dev.jsonl, line 17: the column 'score' is \"high\"",
        ),
        (JUDGED, PAIRS, SCORED[:1], "All scores of"),
        (JUDGED, PAIRS, PAIRS, "no column 'sentence1'"),
    ],
)
def test_wrong_records_are_refused_by_row(recipe, written, task, train, validation, told):
    with pytest.raises(UserError) as caught:
        open_corpus(recipe(task, written(train, "train.jsonl"), written(validation, "dev.jsonl")))
    assert told in caught.value.message


def test_only_some_records_are_taken_where_the_recipe_says_so(recipe, written):
    chosen = recipe(TASK, written(PAIRS))
    data = chosen.data.model_copy(update={"train_records": 5, "validation_records": 40})
    _, corpus = open_corpus(chosen.model_copy(update={"data": data}))
    assert (len(corpus.train), len(corpus.validation)) == (5, 16)
    rows = corpus.records[0].rows.tolist()
    assert rows == sorted(set(rows))


@pytest.mark.parametrize("seed", range(20))
def test_no_negatives_are_the_anchors_own_text_its_positives_and_texts_whose_positive_it_is(seed):
    rng = np.random.default_rng(seed)
    texts_EK = rng.integers(0, 12, (int(rng.integers(1, 15)), 3))
    candidates_C = texts_EK[:, 1:].T.reshape(-1)
    anchors, positives = texts_EK[:, 0].tolist(), texts_EK[:, 1].tolist()
    same = {
        *zip(anchors, positives, strict=True),
        *zip(positives, anchors, strict=True),
        *zip(anchors, anchors, strict=True),
    }
    expected = [
        (e, c) for e, a in enumerate(anchors) for c, text in enumerate(candidates_C.tolist()) if (a, text) in same
    ]
    found = known_positives(texts_EK, candidates_C)
    assert list(zip(*(one.tolist() for one in found), strict=True)) == expected


COUPLES = [
    (f"a {word} by the river", f"one {word} at the shore") for word in ("ship", "cat", "bridge", "house", "tree")
]
BOTH_WAYS = [{"anchor": a, "positive": p} for pair in COUPLES for a, p in (pair, pair[::-1])]
SEVERAL = [{"anchor": a, "positive": f"{p} {end}"} for a, p in COUPLES[:2] for end in ("today", "again", "alone")]


@pytest.mark.parametrize("records", [BOTH_WAYS, SEVERAL], ids=["both ways", "several positives"])
def test_pairs_written_both_ways_and_several_positives_of_an_anchor_are_learnt(recipe, written, tmp_path, records):
    file = written(records, "pairs.jsonl")
    training = {"budget_steps": 120, "batch_rows": len(records), "learning_rate": 5e-3, "validations": 1}
    run = pretrain(recipe(TASK, file, file, **training), tmp_path / "run")
    last = [line for line in run.metrics() if line["kind"] == "validation"][-1]
    assert last["loss"] < 0.05
    assert evaluate_task(run)["metrics"]["accuracy"]["value"] == 1.0
