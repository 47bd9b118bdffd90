"""A study of one task: pre-trained, distilled and from scratch on the same records, and the page says what was used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.builders import make_store, sentences

from pretextlm.config import read_toml
from pretextlm.errors import UserError
from pretextlm.report.page import write_report
from pretextlm.study.compare import run_plan
from pretextlm.study.plan import StudyPlan
from pretextlm.study.task_plan import TaskStudy, load_plan
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run

pytestmark = pytest.mark.slow

THREE_WAYS = Path(__file__).parents[3] / "recipes" / "mnli_three_ways.toml"


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """(run of an encoder, file of labelled pairs)."""
    place = tmp_path_factory.mktemp("begun")
    store = make_store(place / "store")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    training = {"budget_steps": 2, "batch_tokens": 256, "dtype": "fp32", "validations": 0}
    values = {"data": {"store": str(store.path), "length": 32}, "objective": "masked", "model": shape}
    run = pretrain(Recipe.load({**values, "training": training}), place / "run")
    sides = zip(sentences(60), sentences(60, seed=3), strict=True)
    records = [{"premise": a, "hypothesis": b, "label": n % 3} for n, (a, b) in enumerate(sides)]
    (place / "nli.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run.directory, place / "nli.jsonl"


def plan(begun, **changes) -> TaskStudy:
    start, file = begun
    values = read_toml(THREE_WAYS)
    data = {"train": str(file), "validation": str(file), "train_records": 30, "validation_records": 60, "length": 48}
    training = {"budget_steps": 2, "batch_rows": 8, "validations": 1, "dtype": "fp32", "compile": "off"}
    values["recipe"] |= {"start": str(start), "data": data, "training": training}
    values["entries"] = [entry | ({"layers": [1]} if "layers" in entry else {}) for entry in values["entries"]]
    return TaskStudy.parse({**values, "seeds": [1], **changes})


@pytest.fixture(scope="module")
def done(begun, tmp_path_factory):
    """A study directory."""
    place = tmp_path_factory.mktemp("study") / "s"
    outcome = run_plan(plan(begun, seeds=[1, 2]), place, command=["pretextlm", "compare"])
    assert not outcome.failed
    return place


def run_of(done, label):
    return Run.open(done / "runs" / f"{label}-seed1")


def test_the_shipped_study_has_three_models_frozen_and_unfrozen():
    study = load_plan(THREE_WAYS, ["recipe.data.train_records=7"])
    assert isinstance(study, TaskStudy)
    assert study.recipe["data"]["train_records"] == 7
    labels = [entry.label for entry in study.entries]
    assert {f"{name}{end}" for name in ("pretrained", "distilled", "scratch") for end in ("", "-frozen")} == set(labels)
    assert list(study.recipe["task"]["labels"]) == ["entailment", "neutral", "contradiction"]


def test_a_plan_reads_back_as_it_was_written(done, begun):
    assert load_plan(done / "study.toml") == plan(begun, seeds=[1, 2])


def test_each_entry_begins_and_learns_as_it_says(done, begun):
    start = Run.open(begun[0]).load_model()
    table = start.embed_tokens.weight
    assert torch.equal(run_of(done, "pretrained-frozen").load_model().embed_tokens.weight, table)
    assert not torch.equal(run_of(done, "pretrained").load_model().embed_tokens.weight, table)
    scratch = run_of(done, "scratch-frozen").load_model()
    assert scratch.embed_tokens.weight.shape == table.shape
    assert not torch.equal(scratch.embed_tokens.weight, table)
    student = run_of(done, "distilled-frozen").load_model()
    assert len(student.encoder) == 1
    ours, theirs = student.encoder[0].state_dict(), start.encoder[1].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert run_of(done, "distilled").recipe.training_objective.teacher == str(done / "runs" / "pretrained-seed1")


def test_the_page_says_how_many_records_of_how_many_and_compares_accuracies(done):
    page, summary = write_report([done])
    text = page.read_text()
    assert "Taught by</dt><dd>pretrained</dd>" in text
    assert str(done) not in text.partition('id="again"')[0]  # a page that is shared does not say where runs lay
    assert "30 of 60 records to learn from, 60 of 60 to be judged by" in text
    assert "Accuracy on held-out records" in text
    assert "Record by record" in text
    assert "blank" not in text.partition("</style>")[2].partition('id="again"')[0]
    assert "accuracy" in summary["finding"]
    assert {measure["seeds"] for one in summary["conditions"].values() for measure in one.values()} == {2}


def test_the_same_call_again_does_nothing_and_other_records_are_refused(done, begun):
    assert len(run_plan(plan(begun, seeds=[1, 2]), done).skipped) == 12
    assert len(run_plan(plan(begun, seeds=[1]), done).skipped) == 12
    recipe = plan(begun).recipe
    other = {**recipe, "training": {**recipe["training"], "batch_rows": 3}}
    with pytest.raises(UserError, match=r"holds another study: recipe\.training\.batch_rows is .*, here 3"):
        run_plan(plan(begun, seeds=[1]).model_copy(update={"recipe": other}), done)
    other = begun[1].read_text()
    begun[1].write_text(other.replace('"label": 2', '"label": 1', 1))
    try:
        with pytest.raises(UserError, match="records were written again"):
            run_plan(plan(begun, seeds=[1, 2]), done)
    finally:
        begun[1].write_text(other)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"entries": [{"label": "a", "teacher": "b"}, {"label": "b"}]}, "taught by 'b', which is no entry before it"),
        ({"entries": [{"label": "a"}, {"label": "A"}]}, "the same label"),
        ({"entries": [{"label": "a", "scratch": True, "layers": [0]}]}, "no layers of another"),
        ({"entries": [{"label": "a", "task": {"label": "gold"}}]}, "gold"),
        ({"entries": [{"label": "a", "training": {"learning_rat": 1}}]}, "learning_rat"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_training(begun, tmp_path, changes, told):
    with pytest.raises(UserError) as caught:
        run_plan(plan(begun, **changes), tmp_path / "s")
    assert told in caught.value.message
    assert not (tmp_path / "s" / "runs").exists()


def test_a_file_without_entries_is_a_study_of_objectives():
    assert isinstance(load_plan(THREE_WAYS.parent / "studies" / "three_objectives.toml"), StudyPlan)
