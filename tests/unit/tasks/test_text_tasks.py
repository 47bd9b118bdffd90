"""Classes and numbers of texts: learnt from the training records, refused by row, the same in any batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.builders import sentences

from pretextlm.errors import UserError
from pretextlm.evaluation.task_evaluation import evaluate_task, examples_of, predictions
from pretextlm.training.corpus import open_corpus
from pretextlm.training.plan import make_loader, make_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Runtime
from pretextlm.training.trainer import Trainer

CPU = torch.device("cpu")
TEXTS = sentences(40)


def labelled(values, extra=()):
    return [{"text": text, "label": value} for text, value in zip(TEXTS, values, strict=False)] + list(extra)


SIDES = labelled(["left", "right"] * 20)


def gradients(recipe, micro_rows, tmp_path):
    """Of one step, cut into passes of so many examples, by weights that tell texts apart."""
    recipe, corpus = open_corpus(recipe)
    plan = replace(make_plan(recipe, corpus, CPU), micro_rows=micro_rows)
    trainer = Trainer(Run(tmp_path, recipe), corpus, plan, Runtime.choose(recipe.training, 0.0), Silent())
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    with make_loader(recipe, corpus, None) as loader:
        losses = trainer.gradients(list(loader.step(0, plan.rows, micro_rows)))
    trainer.close()
    return losses, {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}


CHOICES = [{"text": t, "choices": TEXTS[n % 7 : n % 7 + 2 + n % 3], "label": n % 2} for n, t in enumerate(TEXTS)]
KINDS = {
    "text_classification": (SIDES, {}),
    "text_regression": (labelled(list(np.arange(40) / 7)), {}),
    "multiple_choice": (CHOICES, {"label_names": ["0", "1", "2", "3"]}),
}


@pytest.mark.parametrize("task", KINDS)
def test_a_step_has_one_gradient_however_it_is_cut(recipe, written, tmp_path, task):
    records, options = KINDS[task]
    chosen = recipe({"name": task, **options}, written(records), dropout=0.1)
    whole_loss, whole = gradients(chosen, 8, tmp_path)
    for rows in (1, 3):
        loss, cut = gradients(chosen, rows, tmp_path)
        assert loss == pytest.approx(whole_loss, rel=1e-6)
        scale = max(float(g.abs().max()) for g in whole.values())
        assert all(torch.allclose(cut[n], g, rtol=0, atol=1e-6 * scale) for n, g in whole.items())


def test_what_the_model_says_of_an_example_does_not_depend_on_its_neighbours(recipe, written, tmp_path):
    run = pretrain(recipe({"name": "text_classification"}, written(SIDES)), tmp_path / "run")
    _, corpus = open_corpus(run.recipe)
    model, task = run.load_model(), run.recipe.training_objective
    together = predictions(model, task, corpus.train, run)
    for index in (0, 7, 39):
        alone = task.examples(corpus.records[0].take([index]), _encoder(run), model.config, run.recipe.data.length)
        assert predictions(model, task, alone, run)[0] == pytest.approx(together[index], abs=1e-6)


def _encoder(run):
    from pretextlm.data.offset_mapping import OffsetTokenizer

    return OffsetTokenizer(run.tokenizer, run.vocabulary)


def answers_of(run, records):
    model, task = run.load_model(), run.recipe.training_objective
    examples = examples_of(model, task, run, records)
    return task.answers(predictions(model, task, examples, run), examples, _encoder(run), records)


@pytest.mark.slow
def test_classes_are_named_in_the_run_and_answers_are_names(recipe, written, tmp_path):
    run = pretrain(recipe({"name": "text_classification"}, written(SIDES)), tmp_path / "run")
    task = Run.open(run.directory).recipe.training_objective
    assert task.labels == ("left", "right")
    found = evaluate_task(run)
    assert found["settings"]["records"] == 40
    assert set(answers_of(run, open_corpus(run.recipe)[1].records[1])) <= {"left", "right"}


def test_numbers_are_places_of_given_names_and_stay_numbers_without(recipe, written):
    file = written(labelled([0, 2, 1, 2] * 10))
    names = ["no", "perhaps", "yes"]
    given, corpus = open_corpus(recipe({"name": "text_classification", "labels": names}, file))
    assert given.training_objective.labels == ("no", "perhaps", "yes")
    assert corpus.train.labels[:4].tolist() == [0, 2, 1, 2]
    assert open_corpus(recipe({"name": "text_classification"}, file))[0].training_objective.labels == ("0", "1", "2")


def test_balanced_weights_make_all_classes_count_the_same(recipe, written):
    file = written(labelled(["rare"] * 4 + ["often"] * 36))
    task = open_corpus(recipe({"name": "text_classification", "class_weights": "balanced"}, file))[0].training_objective
    assert dict(zip(task.labels, task.weights, strict=True)) == pytest.approx({"often": 40 / 72, "rare": 40 / 8})


def test_labels_in_another_unit_give_answers_in_that_unit(recipe, written, tmp_path):
    values, found = np.sin(np.arange(40.0)), []
    for name, labels in (("plain", values), ("scaled", 100 + 5 * values)):
        chosen = recipe(
            {"name": "text_regression"}, written(labelled(list(labels)), f"{name}.jsonl"), learning_rate=1e-2
        )
        run = pretrain(chosen, tmp_path / name)
        found.append(np.array(answers_of(run, open_corpus(run.recipe)[1].records[0])))
    assert found[0].std() > 1e-3
    assert found[1] == pytest.approx(100 + 5 * found[0], abs=1e-3)


def test_a_pair_is_told_apart_by_types_and_the_longer_text_is_cut(recipe, written):
    records = [{"a": "The river. " * 30, "b": "A law.", "label": i % 2} for i in range(4)]
    chosen = recipe({"name": "text_classification", "text": "a", "text_pair": "b"}, written(records))
    whole, corpus = open_corpus(chosen)
    vocabulary = whole.vocabulary(corpus)
    first = slice(0, int(corpus.train.offsets[1]))
    tokens, types = corpus.train.tokens[first], corpus.train.types[first]
    assert len(tokens) == 48
    assert tokens[0] == vocabulary.cls
    assert np.flatnonzero(tokens == vocabulary.sep).tolist() == [int(np.argmax(types)) - 1, 47]


@pytest.mark.parametrize(
    ("records", "task", "told"),
    [
        (labelled(["a", "b"] * 5, [{"text": "x", "label": None}]), {}, "line 11"),
        (labelled(["a", "b"] * 5, [{"text": "  ", "label": "a"}]), {}, "line 11"),
        (labelled(["a", "b"] * 5, [{"text": 3, "label": "a"}]), {}, "line 11"),
        (labelled(["a", "b"] * 5, [{"text": "x", "label": "c"}]), {"labels": ["a", "b"]}, "line 11"),
        (labelled(["a"] * 5), {}, "All labels of"),
        (labelled(["a", "b"] * 5), {"labels": ["a", "b", "c"]}, "no example of the class 'c'"),
        (labelled(["a", "b"] * 5), {"text": "sentence"}, "sentence"),
        ([], {}, "records.jsonl"),
    ],
)
def test_wrong_records_are_refused_before_training_by_file_and_row(recipe, written, records, task, told):
    with pytest.raises(UserError) as caught:
        open_corpus(recipe({"name": "text_classification", **task}, written(records)))
    assert told in caught.value.message


def test_a_label_that_training_did_not_have_is_refused_in_validation(recipe, written):
    train, validation = written(SIDES, "train.jsonl"), written(labelled(["left", "up"]), "dev.jsonl")
    with pytest.raises(UserError, match=r"dev\.jsonl, line 2: the label 'up'"):
        open_corpus(recipe({"name": "text_classification"}, train, validation))


def test_an_epoch_is_one_pass_over_the_records(recipe, written, tmp_path):
    chosen = recipe({"name": "text_classification"}, written(SIDES), budget_steps=None, budget_epochs=2.0)
    run = pretrain(chosen, tmp_path / "run")
    assert run.cost()["steps"] == 2 * 40 / 8


def test_records_that_were_replaced_are_evaluated_only_when_they_are_named(recipe, written, tmp_path):
    records = labelled([0, 1] * 4)
    files = written(records, "train.jsonl"), written(records, "dev.jsonl")
    run = pretrain(recipe({"name": "text_classification"}, *files, budget_steps=1), tmp_path / "run")
    before = evaluate_task(run)["metrics"]["accuracy"]["value"]
    flipped = [{**one, "label": 1 - one["label"]} for one in records]
    place = written(flipped, "dev.jsonl")
    with pytest.raises(UserError, match=r"was replaced since it was started: data\.validation"):
        evaluate_task(run)
    assert evaluate_task(run, place)["metrics"]["accuracy"]["value"] == 1 - before
