"""What a task is judged by beside its labels: groups of records, probabilities, a class that means none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.builders import sentences

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.data.records import read_records
from pretextlm.errors import UserError
from pretextlm.evaluation.scores.classification import f1_micro
from pretextlm.evaluation.scores.multirc import group_accuracy, group_f1
from pretextlm.evaluation.scores.ranking import auprc
from pretextlm.evaluation.task_evaluation import check_scores, evaluate_task, examples_of, predictions
from pretextlm.tasks.question_answering import QuestionAnswering
from pretextlm.tasks.text_classification import TextClassification
from pretextlm.tasks.token_classification import TokenClassification
from pretextlm.training.pretrain import pretrain
from pretextlm.training.run_directory import Run

RELATIONS = ("none", "parent", "child")
RECORDS = [
    {"text": text, "label": n % 3, "idx": {"part": n // 12, "question": n // 4 % 3}}
    for n, text in enumerate(sentences(24))
]


@pytest.fixture(scope="module")
def run(start, tmp_path_factory):
    """A run of three classes, which is judged in every way."""
    from pretextlm.training.initial_weights import with_start
    from pretextlm.training.recipe import Recipe

    place = tmp_path_factory.mktemp("judged")
    file = place / "records.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    task = {"name": "text_classification", "labels": list(RELATIONS), "none_label": "none"}
    task |= {"group": ["idx.part", "idx.question"]}
    task |= {"metrics": ["f1_micro", "f1_macro", "auprc", "group_f1", "group_accuracy", "accuracy"]}
    values = {
        "start": str(start),
        "data": {"train": str(file), "validation": str(file), "length": 48},
        "task": task,
        "training": {"budget_steps": 3, "batch_rows": 8, "dtype": "fp32", "compile": "off", "learning_rate": 1e-2},
    }
    return pretrain(Recipe.load(with_start(values)), place / "run")


@pytest.mark.slow
def test_a_run_is_judged_by_groups_probabilities_and_classes_that_count(run):
    metrics = evaluate_task(run)["metrics"]
    task = run.recipe.training_objective
    records = read_records(run.recipe.data.validation, task.validation_columns())
    model = run.load_model()
    chances = predictions(model, task, examples_of(model, task, run, records), run)
    answers, wanted = chances.argmax(1).tolist(), [record["label"] for record in RECORDS]
    groups = [(record["idx"]["part"], record["idx"]["question"]) for record in RECORDS]
    assert len(set(groups)) == 6
    expected = {
        "f1_micro": f1_micro(answers, wanted, [1, 2]),
        "auprc": auprc(chances, wanted),
        "group_f1": group_f1(answers, wanted, groups),
        "group_accuracy": group_accuracy(answers, wanted, groups),
    }
    assert {name: metrics[name] for name in expected} == {name: one.plain() for name, one in expected.items()}
    assert metrics["accuracy"]["value"] == np.mean(np.array(answers) == wanted)


def test_other_records_may_be_judged_by_other_scores(run, written):
    file = written([{"Premise": record["text"], "Label": RELATIONS[record["label"]]} for record in RECORDS], "ax.jsonl")
    found = evaluate_task(run, f"{file}?text=Premise&label=Label&metrics=matthews,accuracy")
    assert list(found["metrics"]) == ["matthews", "accuracy"]
    assert found["settings"]["records"] == 24
    with pytest.raises(UserError, match="There is no score 'mathews'"):
        evaluate_task(run, f"{file}?metrics=mathews")


def test_scores_that_do_not_suit_a_task_are_refused_before_anything_is_read():
    with pytest.raises(UserError, match=r"'group_f1' needs groups of records, and the recipe has no task.group"):
        check_scores(TextClassification(metrics=("group_f1",)))
    with pytest.raises(UserError, match=r"'auprc' needs classes, which question_answering does not have"):
        check_scores(QuestionAnswering(metrics=("auprc",)))


def test_the_class_that_means_none_is_one_of_the_classes(written):
    task = TextClassification(labels=RELATIONS, none_label="nono")
    with pytest.raises(UserError, match="'nono', which is none of the classes"):
        task.fit_labels(read_records(written(RECORDS), task.columns()))


def test_an_impossible_question_has_no_answer_whatever_stands_there(written, start):
    asked = {"question": "Who?", "context": "Ann ran.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    for yes, no in ((True, False), (1, 0), ("True", "False")):
        file = written([{**asked, "is_impossible": yes}, {**asked, "is_impossible": no}])
        task = QuestionAnswering(no_answer=True, impossible="is_impossible")
        assert task.references(read_records(file, task.columns())) == [[], ["Ann"]]
    strict = QuestionAnswering(impossible="is_impossible")
    run = Run.open(start)
    encoder = OffsetTokenizer(run.tokenizer, run.vocabulary)
    with pytest.raises(UserError, match="line 1: the question has no answer"):
        strict.examples(read_records(file, strict.columns()), encoder, run.load_model().config, 48)


def test_tags_may_stand_by_their_number_where_the_recipe_names_them(written):
    file = written([{"tokens": ["Ann", "ran"], "tags": [1, 0]}])
    task = TokenClassification(labels=("O", "B-PER"))
    assert task.references(read_records(file, task.columns())) == [["B-PER", "O"]]
    with pytest.raises(UserError, match="line 1: the column 'tags' is 2, where a word should be"):
        task.references(read_records(written([{"tokens": ["Ann"], "tags": [2]}], "more.jsonl"), task.columns()))
    nameless = TokenClassification()
    with pytest.raises(UserError, match="line 1: the column 'tags' is 1, where a word should be"):
        nameless.fit_labels(read_records(file, nameless.columns()))


def test_answers_stand_beside_the_records_they_answer_however_rows_are_filled(run):
    task = run.recipe.training_objective
    records = read_records(run.recipe.data.validation, task.validation_columns())
    model = run.load_model()
    together = predictions(model, task, examples_of(model, task, run, records), run)
    for index in range(len(records)):
        alone = predictions(model, task, examples_of(model, task, run, records.take([index])), run)
        assert together[index] == pytest.approx(alone[0], abs=1e-5)
    assert np.ptp(together, axis=0).max() > 1e-3
