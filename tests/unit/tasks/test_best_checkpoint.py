"""A run that gets worse ends when patience does, and with the weights of its best validation."""

from __future__ import annotations

import numpy as np
import pytest
from tests.builders import sentences

from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import predictions
from pretextlm.training.corpus import open_corpus
from pretextlm.training.pretrain import pretrain

pytestmark = pytest.mark.slow

TRAIN = [{"text": text, "label": i % 2} for i, text in enumerate(sentences(24))]
OTHER = [{"text": text, "label": (i + 1) % 2} for i, text in enumerate(sentences(24))]
"""The same texts with the other labels: the better trained, the worse it is here."""
LONG = {"budget_steps": 20, "validations": 20, "learning_rate": 1e-2, "schedule": "linear", "warmup": 0.0}


def losses(run):
    return {line["step"]: line["loss"] for line in run.metrics() if line["kind"] == "validation"}


def loss_of(run):
    """Of the weights the run ended with."""
    _, corpus = open_corpus(run.recipe)
    probabilities = predictions(run.load_model(), run.recipe.training_objective, corpus.validation, run)
    return -np.log(probabilities[np.arange(24), corpus.validation.labels]).mean()


@pytest.fixture
def chosen(recipe, written):
    files = written(TRAIN, "train.jsonl"), written(OTHER, "dev.jsonl")
    return lambda **training: recipe({"name": "text_classification"}, *files, **{**LONG, **training})


def test_a_run_ends_with_the_weights_of_its_best_validation(chosen, tmp_path):
    run = pretrain(chosen(keep_best=True), tmp_path / "run")
    found = losses(run)
    assert len(found) == 21
    assert min(found.values()) < found[20]
    assert loss_of(run) == pytest.approx(min(found.values()), abs=1e-5)
    assert not (run.directory / "best").exists()
    last = pretrain(chosen(), tmp_path / "last")
    assert losses(last) == found
    assert loss_of(last) == pytest.approx(found[20], abs=1e-5)


def test_patience_ends_a_run_after_so_many_validations_that_are_no_better(chosen, tmp_path):
    run = pretrain(chosen(patience=3), tmp_path / "run")
    found = list(losses(run).values())
    assert len(found) < 21
    assert int(np.argmin(found)) == len(found) - 4
    again = pretrain(chosen(patience=3), tmp_path / "run", resume=True)
    assert list(losses(again).values()) == found


def test_better_may_be_more_of_an_accuracy_and_must_be_something_that_is_measured(chosen, tmp_path):
    run = pretrain(chosen(keep_best=True, best_by="class_accuracy"), tmp_path / "run")
    lines = [line for line in run.metrics() if line["kind"] == "validation"]
    best = max(lines, key=lambda line: line["class_accuracy"])
    assert loss_of(run) == pytest.approx(best["loss"], abs=1e-5)
    with pytest.raises(UserError, match=r"training\.best_by is 'bleu'"):
        pretrain(chosen(keep_best=True, best_by="bleu"), tmp_path / "other")
