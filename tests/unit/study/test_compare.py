"""A study does what is missing, once, and a run that fails leaves the others alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.builders import make_store

from pretextlm.data.store import Store
from pretextlm.errors import UserError
from pretextlm.report.read import read
from pretextlm.study.compare import StudyResults, run_plan
from pretextlm.study.plan import StudyPlan
from pretextlm.training.run_directory import locked
from pretextlm.training.signals import Stopped

RUNS = ["causal-seed1", "masked-seed1", "causal-seed2", "masked-seed2"]


class Workshop:
    """Stands in for trainer and evaluation: writes what they write, and fails where told to."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.evaluated: list[str] = []
        self.fail_training: dict[str, BaseException] = {}
        self.fail_evaluation: dict[str, BaseException] = {}

    def pretrain(self, recipe: Any, directory: Path, *, resume: bool, command: Any, progress: Any) -> None:
        assert resume
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.toml").write_text(f'name = "{recipe.name}"\nseed = {recipe.seed}\n')
        progress.step(0.5, {"loss": 3.0})
        if directory.name in self.fail_training:
            raise self.fail_training[directory.name]
        (directory / "cost.json").write_text('{"parameters": 1}')
        self.trained.append(directory.name)

    def evaluate(self, directory: Path) -> None:
        if directory.name in self.fail_evaluation:
            raise self.fail_evaluation[directory.name]
        metric = {"value": 0.5, "n": 10, "stderr": 0.1, "unit": "fraction", "better": "higher"}
        (directory / "evaluation.json").write_text(json.dumps({"metrics": {"blank_exact_match": metric}}))
        self.evaluated.append(directory.name)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("corpus") / "store").path


@pytest.fixture
def plan(store: Path) -> StudyPlan:
    values = {"store": str(store), "objectives": ["causal", "masked"], "seeds": [1, 2], "budget": {"seconds": 1.0}}
    return StudyPlan.parse(values | {"length": 32})


def run(plan: StudyPlan, directory: Path, workshop: Workshop) -> StudyResults:
    return run_plan(plan, directory, command=["pretextlm", "x"], pretrain=workshop.pretrain, evaluate=workshop.evaluate)


def test_a_study_trains_and_evaluates_every_run_and_notes_where_it_came_from(plan: StudyPlan, tmp_path: Path) -> None:
    workshop = Workshop()
    outcome = run(plan, tmp_path / "s", workshop)
    assert workshop.trained == workshop.evaluated == outcome.finished == RUNS
    command = json.loads((tmp_path / "s/command.json").read_text())
    corpus = json.loads((tmp_path / "s/corpus.json").read_text())
    assert command["command"] == ["pretextlm", "x"]
    assert command["started"] <= command["finished"]
    assert command["machine"]["cpus"] >= 1
    assert corpus["sources"][0]["licence"] == "CC0-1.0"
    assert corpus["documents"] == {"train": 300, "validation": 40}
    assert corpus["vocabulary_size"] == Store.open(Path(plan.store)).vocabulary.size


def test_the_same_call_again_does_nothing(plan: StudyPlan, tmp_path: Path) -> None:
    run(plan, tmp_path / "s", Workshop())
    again = Workshop()
    outcome = run(plan, tmp_path / "s", again)
    assert again.trained == again.evaluated == []
    assert outcome.skipped == RUNS


def test_a_run_that_was_trained_but_not_evaluated_is_only_evaluated(plan: StudyPlan, tmp_path: Path) -> None:
    first = Workshop()
    first.fail_evaluation = {"masked-seed1": UserError("no blanks")}
    run(plan, tmp_path / "s", first)
    again = Workshop()
    run(plan, tmp_path / "s", again)
    assert again.trained == []
    assert again.evaluated == ["masked-seed1"]


@pytest.mark.parametrize("fault", [UserError("The gradient is not finite."), ZeroDivisionError("by zero")])
def test_a_run_that_fails_is_named_and_the_others_go_on(plan: StudyPlan, tmp_path: Path, fault: Exception) -> None:
    workshop = Workshop()
    workshop.fail_training = {"masked-seed1": fault}
    outcome = run(plan, tmp_path / "s", workshop)
    assert outcome.finished == [name for name in RUNS if name != "masked-seed1"]
    assert list(outcome.failed) == ["masked-seed1"]
    problems = {r.path.name: r.problem for r in read([tmp_path / "s"]).runs if r.problem}
    assert list(problems) == ["masked-seed1"]
    assert problems["masked-seed1"].startswith("failed: ")


def test_a_failure_is_forgotten_when_the_run_succeeds(plan: StudyPlan, tmp_path: Path) -> None:
    workshop = Workshop()
    workshop.fail_training = {"masked-seed1": UserError("The disk is full.")}
    run(plan, tmp_path / "s", workshop)
    assert run(plan, tmp_path / "s", Workshop()).finished == ["masked-seed1"]
    assert not any(r.problem for r in read([tmp_path / "s"]).runs)


def test_a_signal_ends_the_study_and_the_same_call_goes_on(plan: StudyPlan, tmp_path: Path) -> None:
    workshop = Workshop()
    workshop.fail_training = {"causal-seed2": Stopped(15)}
    with pytest.raises(Stopped):
        run(plan, tmp_path / "s", workshop)
    assert json.loads((tmp_path / "s/command.json").read_text())["finished"] is None
    again = Workshop()
    run(plan, tmp_path / "s", again)
    assert again.trained == ["causal-seed2", "masked-seed2"]


def test_a_directory_with_another_plan_is_refused_and_left_alone(plan: StudyPlan, tmp_path: Path) -> None:
    run(plan, tmp_path / "s", Workshop())
    before = (tmp_path / "s/study.toml").read_bytes()
    table = {"name": "masked", "label": "masked", "rate": 0.4}
    changes = {
        "budget": {"seconds": 2.0},
        "model": {"hidden_size": 64},
        "objectives": ["causal", table],
        "seeds": [1, 3],
    }
    workshop = Workshop()
    with pytest.raises(UserError, match="holds another study") as caught:
        run(StudyPlan.parse({**plan.plain(), **changes}), tmp_path / "s", workshop)
    for part in (
        "budget.seconds is 1.0, here 2.0",
        "model.hidden_size is not given, here 64",
        "masked: options.rate is not given, here 0.4",
    ):
        assert part in caught.value.message
    assert "seeds" not in caught.value.message
    assert "--out" in caught.value.hint
    assert workshop.trained == []
    assert (tmp_path / "s/study.toml").read_bytes() == before


def test_more_seeds_and_objectives_are_added_and_nothing_is_trained_twice(plan: StudyPlan, tmp_path: Path) -> None:
    run(plan, tmp_path / "s", Workshop())
    grown = StudyPlan.parse({**plan.plain(), "seeds": [2, 3], "objectives": ["masked", "prefix"]})
    workshop = Workshop()
    outcome = run(grown, tmp_path / "s", workshop)
    added = ["prefix-seed1", "prefix-seed2", "causal-seed3", "masked-seed3", "prefix-seed3"]
    assert workshop.trained == workshop.evaluated == outcome.finished == added
    assert sorted(outcome.skipped) == sorted(RUNS)
    held = StudyPlan.load(tmp_path / "s/study.toml")
    assert held.seeds == (1, 2, 3)
    assert [condition.label for condition in held.objectives] == ["causal", "masked", "prefix"]
    assert run(plan, tmp_path / "s", Workshop()).finished == []


def test_a_directory_with_something_else_is_refused(plan: StudyPlan, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and holds no study"):
        run(plan, tmp_path, Workshop())


def test_a_store_prepared_anew_is_refused(plan: StudyPlan, tmp_path: Path) -> None:
    run(plan, tmp_path / "s", Workshop())
    corpus = json.loads((tmp_path / "s/corpus.json").read_text())
    (tmp_path / "s/corpus.json").write_text(json.dumps(corpus | {"hash": "sha256:other"}))
    with pytest.raises(UserError, match="prepared again"):
        run(plan, tmp_path / "s", Workshop())


def test_a_study_in_progress_is_not_run_twice_at_once(plan: StudyPlan, tmp_path: Path) -> None:
    with locked(tmp_path / "s"), pytest.raises(UserError, match="in use"):
        run(plan, tmp_path / "s", Workshop())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": "nowhere"}, "nowhere"),
        ({"model": {"hidden_size": 63}}, "hidden_size"),
        ({"training": {"learning_rte": 1.0}}, "learning_rte"),
        ({"model": {"vocab_size": 100}}, "vocab_size"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused_before_anything_is_written(
    plan: StudyPlan, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        run(plan.model_copy(update=change), tmp_path / "s", Workshop())
    assert not (tmp_path / "s").exists()
