"""A grid: every combination of settings with every seed, its best point, and what the page says of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.builders import make_store, sentences

from pretextlm.config import read_toml
from pretextlm.errors import UserError
from pretextlm.grid import labels, point_label, points, set_at
from pretextlm.report.page import render, summary, write_report
from pretextlm.report.read import read
from pretextlm.study.compare import run_plan
from pretextlm.study.extension import joined
from pretextlm.study.grid import RATES, SEEDS, grid_plan, parse_grid, parse_seeds
from pretextlm.study.task_plan import TaskStudy
from pretextlm.training.budget import Budget
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    place = tmp_path_factory.mktemp("begun")
    store = make_store(place / "store", train=40, validation=8)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    training = {"budget_steps": 1, "batch_tokens": 256, "dtype": "fp32", "validations": 0}
    values = {"data": {"store": str(store.path), "length": 32}, "objective": "masked", "model": shape}
    run = pretrain(Recipe.load({**values, "training": training}), place / "run")
    records = [{"text": text, "label": str(n % 2)} for n, text in enumerate(sentences(40))]
    (place / "some.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return {
        "name": "some task",
        "start": str(run.directory),
        "data": {"train": str(place / "some.jsonl"), "validation": str(place / "some.jsonl"), "length": 32},
        "task": {"name": "text_classification", "text": "text", "label": "label", "labels": ["0", "1"]},
        "training": {"budget_steps": 2, "batch_rows": 8, "validations": 1, "dtype": "fp32", "compile": "off"},
    }


GRID = {"training.learning_rate": [2e-5, 5e-4], "training.budget_epochs": [0.2, 0.4]}


@pytest.fixture(scope="module")
def done(recipe, tmp_path_factory):
    place = tmp_path_factory.mktemp("study") / "s"
    plan = grid_plan(recipe, {"training.learning_rate": [2e-5, 5e-4]}, (1, 2), "here")
    outcome = run_plan(plan, place)
    assert not outcome.failed
    return place, plan, outcome


def test_the_last_setting_changes_fastest():
    assert points({"a.b": [1, 2], "a.c": [3, 4]}) == [{"a.b": b, "a.c": c} for b, c in [(1, 3), (1, 4), (2, 3), (2, 4)]]
    assert points({}) == [{}]


def test_points_are_called_by_their_settings():
    assert (
        point_label({"training.learning_rate": 2e-5, "training.batch_rows": 16}) == "learning_rate_2e-05_batch_rows_16"
    )
    assert labels(["one"], {"tuning.thaw": [0.5]}) == [["thaw_0.5"]]
    assert labels(["one", "two"], {"tuning.thaw": [0.5]}) == [["one_thaw_0.5"], ["two_thaw_0.5"]]
    assert labels(["one", "two"], {}) == [["one"], ["two"]]


def test_a_setting_deep_inside_is_changed_and_what_is_given_is_not():
    given = {"tuning": {"lora": {"rank": 4, "alpha": 1.0}}}
    assert set_at(given, "tuning.lora.rank", 8) == {"tuning": {"lora": {"rank": 8, "alpha": 1.0}}}
    assert given["tuning"]["lora"]["rank"] == 4


def test_every_point_comes_with_every_seed(recipe, tmp_path):
    plan = grid_plan(recipe, GRID, (1, 2), "here")
    runs = plan.runs()
    assert len(runs) == len({run.directory for run in runs}) == 8
    trainings = [plan.recipe_of(run, tmp_path).training for run in runs if run.seed == 1]
    assert [(t.learning_rate, t.budget) for t in trainings] == [
        (rate, Budget("epochs", epochs)) for rate in (2e-5, 5e-4) for epochs in (0.2, 0.4)
    ]


def test_a_taught_entry_is_taught_by_the_same_point(recipe, tmp_path):
    shared = {key: value for key, value in recipe.items() if key != "name"}
    entries = [{"label": "a"}, {"label": "b", "teacher": "a"}]
    plan = TaskStudy.parse({"recipe": shared, "entries": entries, "grid": GRID, "seeds": [1]})
    assert [(one.label, one.teacher) for one in plan.compared[4:6]] == [
        ("b_learning_rate_2e-05_budget_epochs_0.2", "a_learning_rate_2e-05_budget_epochs_0.2"),
        ("b_learning_rate_2e-05_budget_epochs_0.4", "a_learning_rate_2e-05_budget_epochs_0.4"),
    ]


def test_each_run_learns_at_its_rate(done):
    place, _, outcome = done
    assert len(outcome.finished) == 4
    rate = Run.open(place / "runs" / "learning_rate_0.0005-seed2").recipe
    assert (rate.training.learning_rate, rate.seed) == (5e-4, 2)


def test_the_same_plan_finds_everything_done(done):
    place, plan, _ = done
    assert TaskStudy.parse(read_toml(place / "study.toml")) == plan
    assert len(run_plan(plan, place).skipped) == 4


def test_a_grid_grows_by_values_and_not_by_settings(done, recipe):
    _, plan, _ = done
    more = grid_plan(recipe, {"training.learning_rate": [5e-4, 1e-4]}, (3,), "here")
    grown = joined(plan, more, Path("s/study.toml"))
    assert grown.grid == {"training.learning_rate": (2e-5, 5e-4, 1e-4)}
    assert grown.seeds == (1, 2, 3)
    with pytest.raises(UserError, match=r"grid has the settings training\.learning_rate, here"):
        joined(plan, grid_plan(recipe, GRID, (1,), "here"), Path("s/study.toml"))


def test_the_page_names_the_best_point_and_that_it_was_chosen(done):
    study = read([done[0]])
    found = summary(study)
    means = {label: measures["accuracy"]["mean"] for label, measures in found["conditions"].items()}
    assert list(means) == ["learning_rate_2e-05", "learning_rate_0.0005"]
    assert means[found["best"]] == max(means.values())
    assert "chosen on the records that it is scored on" in found["qualification"]
    assert "chosen on the records that it is scored on" in render(study)
    assert write_report([done[0]])[0].exists()


def test_one_seed_of_a_task_is_no_objective(done, recipe, tmp_path):
    run_plan(grid_plan(recipe, {"training.learning_rate": [2e-5, 5e-4]}, (1,), "here"), tmp_path / "s")
    said = summary(read([tmp_path / "s"]))["qualification"]
    assert "Not every point of the grid has more than one seed" in said
    assert "objective" not in said


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"learning_rate": [1e-5]}, "no setting of a recipe"),
        ({"training.learning_rate": 1e-5}, "needs a list"),
        ({"training.learning_rate": []}, "needs a list"),
        ({"training.learning_rate": [1e-5, 1e-5]}, "same"),
    ],
)
def test_what_is_no_grid_is_refused(recipe, grid, message):
    with pytest.raises(UserError, match=message):
        grid_plan(recipe, grid, (1,), "here")


def test_an_unknown_setting_is_refused_before_training(recipe, tmp_path):
    with pytest.raises(UserError, match=r"training\.learning_rat"):
        run_plan(grid_plan(recipe, {"training.learning_rat": [1e-5]}, (1,), "here"), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_recipe_without_a_task_is_refused(recipe):
    with pytest.raises(UserError, match="no table"):
        grid_plan({key: value for key, value in recipe.items() if key != "task"}, RATES, SEEDS, "here")


def test_the_command_line_writes_values_with_commas():
    assert parse_grid(["training.learning_rate=2e-5,5e-5", "training.schedule=wsd,linear", "a.b=true"]) == {
        "training.learning_rate": [2e-5, 5e-5],
        "training.schedule": ["wsd", "linear"],
        "a.b": [True],
    }
    assert parse_seeds("1,2") == [1, 2]
    for call in (lambda: parse_grid(["training.learning_rate"]), lambda: parse_seeds("a")):
        with pytest.raises(UserError, match="Cannot read"):
            call()
