"""What a run forgets of other text: measured as evaluation measures it, and without a trace in what is learnt."""

import json

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.unit.training.processes import Processes

from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.evaluation.forgetting import forgetting, lines, note_forgetting
from pretextlm.metric import weighted_ratios
from pretextlm.training import trainer as module
from pretextlm.training.forgetting import read_forgetting
from pretextlm.training.initial_weights import with_start
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.signals import Stopped

pytestmark = pytest.mark.slow

MODEL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "old", train=40, validation=12)


@pytest.fixture(scope="module")
def new(old, tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "new", train=60, validation=10, like=old)


def values(store, objective="causal", data=None, **tables):
    training = {"budget_steps": 4, "batch_tokens": 256, "dtype": "fp32", "validations": 2, "compile": "off"}
    return {
        "data": {"store": str(store.path), "length": 64, **(data or {})},
        "objective": objective if isinstance(objective, dict) else {"name": objective},
        "training": training | tables.pop("training", {}),
    } | tables


@pytest.fixture(scope="module")
def first(old, tmp_path_factory):
    return pretrain(Recipe.load(values(old, model=MODEL)), tmp_path_factory.mktemp("runs") / "first")


def going_on(new, first, **tables):
    return Recipe.load(with_start(values(new, start=str(first.directory), **tables)))


@pytest.fixture(scope="module")
def run(new, first, tmp_path_factory):
    return pretrain(going_on(new, first), tmp_path_factory.mktemp("runs") / "on")


def looked_back(run):
    return [{k: v for k, v in m.items() if k != "seconds"} for m in run.metrics() if m["kind"] == "forgetting"]


def test_the_store_of_the_run_it_starts_from_is_watched_at_every_validation(run, old):
    assert run.recipe.data.forgetting_stores == (str(old.path),)
    assert [(line["store"], line["step"]) for line in looked_back(run)] == [("old", 0), ("old", 2), ("old", 4)]


def test_the_figure_before_is_that_of_the_run_it_starts_from(run, first, old):
    expected = evaluate(first.directory, store=old.path)["metrics"]
    found, about = forgetting(run)
    assert looked_back(run)[0]["loss"] == expected["loss"]["value"]
    assert found["loss_before:old"].value == expected["loss"]["value"]
    assert found["bits_per_byte_before:old"].value == expected["bits_per_byte"]["value"]
    assert about["old"]["documents"] == 12


def test_the_figure_after_is_that_of_the_run_itself(run, old):
    found, _ = forgetting(run)
    evaluated = evaluate(run.directory, store=old.path)["metrics"]
    assert found["loss_after:old"].value == evaluated["loss"]["value"]
    assert evaluate(run.directory)["metrics"]["loss_after:old"]["value"] == evaluated["loss"]["value"]
    assert looked_back(run)[-1]["loss"] == evaluated["loss"]["value"]


def test_the_error_of_the_difference_is_over_documents(run, tmp_path):
    memory = read_forgetting(run.directory)["old"]
    totals = np.array(memory["after"])[0] - np.array(memory["before"])[0]
    counts = np.array(memory["counts"])[0]
    documents = memory["batches"]["document"]
    assert documents == sorted(set(documents))  # one batch for each of these short documents or pairs of them
    lost = forgetting(run)[0]["forgotten:old"]
    assert lost.stderr == pytest.approx(weighted_ratios([(totals, counts, 1.0)], "nats", "lower").stderr)
    assert lost.value == pytest.approx(totals.sum() / counts.sum())
    few = memory["batches"] | {"document": [documents[0], *documents[1:9], *[documents[9]] * (len(documents) - 9)]}
    (tmp_path / "forgetting.json").write_text(json.dumps({"old": memory | {"batches": few}}))
    ten = forgetting(Run(tmp_path, run.recipe))[0]["forgotten:old"]
    last = [[*some[:9], some[9:].sum()] for some in (totals, counts)]
    assert ten.stderr == pytest.approx(weighted_ratios([(*last, 1.0)], "nats", "lower").stderr)
    few["document"] = [documents[0]] * 2 + few["document"][2:]
    (tmp_path / "forgetting.json").write_text(json.dumps({"old": memory | {"batches": few}}))
    metrics, about = forgetting(Run(tmp_path, run.recipe))
    assert metrics["forgotten:old"].stderr is None
    plain = {name: metric.plain() for name, metric in metrics.items()}
    assert "12 of 12 documents, too few for a standard error" in lines(plain, about)[0]


def test_it_goes_into_evaluation_json_beside_what_is_there(run):
    (run.directory / "evaluation.json").write_text(
        json.dumps({"metrics": {"other": {"value": 1}}, "settings": {"a": 1}})
    )
    noted, about = note_forgetting(run.directory)
    written = json.loads((run.directory / "evaluation.json").read_text())
    assert written["metrics"] == {"other": {"value": 1}, **noted}
    assert written["settings"]["forgetting"]["old"]["documents"] == 12
    assert [line.split(":")[0] for line in lines(noted, about)] == ["forgotten of old"]


def test_watching_changes_no_bit_of_what_is_learnt(run, new, first, tmp_path):
    alone = pretrain(going_on(new, first, data={"forgetting_stores": []}), tmp_path / "alone")
    ours, theirs = run.load_model().state_dict(), alone.load_model().state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not looked_back(alone)
    assert forgetting(alone) == ({}, {})


@pytest.mark.parametrize("after", [0, 2, 3])
def test_an_interrupted_run_records_the_same(run, new, first, tmp_path, monkeypatch, after):
    real = module.Trainer.step

    def stop_then(self, *args):
        if self.state.step == after:
            self.save()
            raise Stopped(2)
        return real(self, *args)

    recipe = going_on(new, first)
    monkeypatch.setattr(module.Trainer, "step", stop_then)
    with pytest.raises(Stopped):
        pretrain(recipe, tmp_path / "cut")
    monkeypatch.setattr(module.Trainer, "step", real)
    resumed = pretrain(recipe, tmp_path / "cut", resume=True)
    assert looked_back(resumed) == looked_back(run)
    assert read_forgetting(resumed.directory) == read_forgetting(run.directory)


def test_a_run_goes_on_watching_without_the_run_it_began_from(new, first, tmp_path):
    recipe = going_on(new, first)
    pretrain(recipe, tmp_path / "run")
    gone = recipe.model_copy(update={"start": str(tmp_path / "gone")})
    assert not gone.trains_as(recipe)
    again = Recipe.load(
        recipe.dump() | {"data": {k: v for k, v in recipe.dump()["data"].items() if k != "forgetting_stores"}}
    )
    resumed = pretrain(again, tmp_path / "run", resume=True)
    assert (
        resumed.recipe.data.forgetting_stores
        == Run.open(tmp_path / "run").recipe.data.forgetting_stores
        == (str(first.recipe.data.store),)
    )


def test_without_validations_only_before_and_after_are_measured(run, new, first, tmp_path):
    quiet = pretrain(going_on(new, first, training={"validations": 0}), tmp_path / "quiet")
    assert not looked_back(quiet)
    assert read_forgetting(quiet.directory) == read_forgetting(run.directory)


def test_a_run_that_stays_on_its_text_watches_nothing(old, first, tmp_path):
    again = pretrain(going_on(old, first), tmp_path / "again")
    assert again.recipe.data.forgetting_stores == ()
    assert not (again.directory / "forgetting.json").exists()


def test_another_tokenizer_is_refused_before_training(new, first, tmp_path):
    other = make_store(tmp_path / "other", vocab_size=440, train=40, validation=10)
    with pytest.raises(UserError, match="another tokenizer") as caught:
        pretrain(going_on(new, first, data={"forgetting_stores": [str(other.path)]}), tmp_path / "run")
    assert "--tokenizer" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_same_store_twice_is_refused(new, first, old, tmp_path):
    with pytest.raises(UserError, match="same store twice"):
        pretrain(going_on(new, first, data={"forgetting_stores": [str(old.path)] * 2}), tmp_path / "run")


@pytest.mark.parametrize(
    "name",
    ["masked", "next_sentence", "span_corruption", "denoisers", "replaced_token", "text_to_text", "distillation"],
)
def test_every_kind_of_objective_is_watched_as_it_is_evaluated(some_of_all, options_of, tmp_path, name):
    recipe = values(some_of_all, {"name": name, **options_of(name)}, {"length": 40}, model=MODEL)
    recipe["data"]["forgetting_stores"] = [str(some_of_all.path)]
    recipe["training"] |= {"budget_steps": 1, "validations": 1}
    run = pretrain(Recipe.load(recipe), tmp_path / "run")
    found, _ = forgetting(run)
    name = some_of_all.path.name
    assert found[f"loss_after:{name}"].value == pytest.approx(evaluate(run.directory)["metrics"]["loss"]["value"])


def test_several_processes_find_what_one_finds(run, new, first, tmp_path):
    recipe = going_on(new, first).dump()
    ways = ("ddp", "zero3")
    jobs = [
        {
            "kind": "train",
            "recipe": recipe | {"training": recipe["training"] | {"parallel": way}},
            "out": str(tmp_path / way),
        }
        for way in ways
    ]
    with Processes() as them:
        assert them.run(jobs, 2) == [["done", "done"]] * 2
    expected = forgetting(run)[0]
    for way in ways:
        found = forgetting(Run.open(tmp_path / way))[0]
        for name, metric in expected.items():
            assert found[name].value == pytest.approx(metric.value, rel=1e-4, abs=1e-5)
