"""What a run that is resumed may change, and what is refused: data, settings and files other than it began with."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from tests.builders import make_store, replace_tokenizer

from pretextlm.errors import UserError
from pretextlm.evaluation.evaluate import evaluate
from pretextlm.training.callbacks.best_weights import BestWeights
from pretextlm.training.checkpoint import newest, write_manifest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_manifest import RunManifest


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def recipe(store, **training):
    return Recipe.load(
        {
            "data": {"store": str(store.path), "length": 32},
            "objective": "causal",
            "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
            "training": {
                "batch_tokens": 256,
                "dtype": "fp32",
                "compile": "off",
                "validations": 2,
                "validation_rows": 8,
                "log_every": 1,
                **training,
            },
        }
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    pretrain(recipe(store, budget_steps=4), out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def weights(run):
    return newest(Run.open(run).checkpoints).model()


def test_a_finished_run_goes_on_to_a_larger_budget_and_says_how(store, run):
    display = Notes()
    done = pretrain(recipe(store, budget_steps=8), run, resume=True, progress=display)
    note = "the budget is 8 steps instead of 4 steps, and the schedules span it: at step 4 the learning rate goes from"
    assert any(one.startswith(note) for one in display.notes)
    lines = done.metrics()
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [0, 2, 4, 8]
    assert done.cost()["steps"] == 8
    assert Run.open(run).recipe.training.budget_steps == 8


def test_a_run_that_ended_with_its_best_weights_says_that_it_goes_on_from_them(store, tmp_path, monkeypatch):
    """Its optimizer's state is that of the last step."""
    losses = iter([3.0, 1.0, 2.0, 0.5, 0.5])
    monkeypatch.setattr(BestWeights, "_value", lambda *_: next(losses))
    pretrain(recipe(store, budget_steps=4, keep_best=True), tmp_path / "run")
    display = Notes()
    pretrain(recipe(store, budget_steps=8, keep_best=True), tmp_path / "run", resume=True, progress=display)
    assert any(one.endswith("the weights are the best ones, of step 2") for one in display.notes)


def test_a_larger_budget_keeps_the_state_of_the_optimizer(store, tmp_path):
    """Under a constant rate, a run of four steps that gets four more ends with the bits of a run of eight."""
    constant = {"schedule": "wsd", "warmup": 0.0, "cooldown": 0.0}
    pretrain(recipe(store, budget_steps=4, **constant), tmp_path / "run")
    pretrain(recipe(store, budget_steps=8, **constant), tmp_path / "run", resume=True)
    pretrain(recipe(store, budget_steps=8, **constant), tmp_path / "whole")
    ones, others = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(ones[name], others[name]) for name in others)


def test_a_budget_may_change_its_unit(store, run):
    done = pretrain(recipe(store, budget_tokens=2000), run, resume=True)
    assert done.cost()["steps"] == 8


def test_a_budget_that_is_used_up_is_refused(store, run):
    with pytest.raises(UserError, match="cannot become 3 steps: 4 steps were trained already"):
        pretrain(recipe(store, budget_steps=3), run, resume=True)
    assert Run.open(run).cost()["steps"] == 4


def test_every_setting_that_differs_is_named(store, run):
    with pytest.raises(UserError) as caught:
        pretrain(recipe(store, budget_steps=8, learning_rate=0.5, warmup=0.5), run, resume=True)
    assert "training.learning_rate: 0.004 became 0.5" in caught.value.message
    assert "training.warmup: " in caught.value.message
    assert "budget" not in caught.value.message


def other_text(store, path):
    return make_store(path, like=store)


def other_tokenizer(store, path):
    """The same text in the same number of tokens: two entries of the vocabulary are exchanged."""
    shutil.copytree(store.path, path)
    values = json.loads((path / "tokenizer.json").read_text())
    vocab = values["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    replace_tokenizer(path, values)
    return path


@pytest.mark.parametrize(
    ("made", "named"), [(other_text, "data.store/train/tokens.bin"), (other_tokenizer, "the tokenizer")]
)
def test_a_store_that_was_replaced_is_refused(store, tmp_path, made, named):
    place = shutil.copytree(store.path, tmp_path / "store")
    values = recipe(replace(store, path=place), budget_steps=2)
    pretrain(values, tmp_path / "run")
    made(store, tmp_path / "other")
    shutil.rmtree(place)
    (tmp_path / "other").rename(place)
    with pytest.raises(UserError, match=f"was started on other data: .*{named}"):
        pretrain(values, tmp_path / "run", resume=True)


def test_held_out_text_that_was_replaced_is_evaluated_only_when_it_is_named(store, tmp_path):
    place = shutil.copytree(store.path, tmp_path / "store")
    run = pretrain(recipe(replace(store, path=place), budget_steps=2), tmp_path / "run")
    before = evaluate(run)
    shutil.rmtree(place)
    make_store(place, like=store)
    with pytest.raises(UserError, match=r"was replaced since it was started: .*data\.store/validation/tokens\.bin"):
        evaluate(run)
    assert evaluate(run, store=place)["metrics"] != before["metrics"]


@pytest.mark.parametrize("name", ["config.toml", "tokenizer.json"])
def test_a_file_that_decides_results_is_checked_when_the_run_is_opened(run, name):
    path = run / name
    path.write_text(path.read_text().replace("num_attention_heads = 2", "num_attention_heads = 4") + "\n")
    with pytest.raises(UserError, match=f"{name} is not what was written"):
        evaluate(run)


def test_a_manifest_that_is_changed_or_removed_is_noticed(run):
    path = run / "run.json"
    text = path.read_text()
    path.write_text(text.replace('"data.store', '"data.stores', 1))
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        evaluate(run)
    path.unlink()
    with pytest.raises(UserError, match=r"run\.json is missing"):
        evaluate(run)


def test_a_checkpoint_of_another_run_is_refused(store, run, tmp_path):
    other = pretrain(recipe(store, budget_steps=4, learning_rate=0.1), tmp_path / "other")
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(other.checkpoints, run / "checkpoints")
    with pytest.raises(UserError, match="is of another run"):
        evaluate(run)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"peak": 5, "command": {}}'])
def test_a_run_does_without_environment_json(store, run, text):
    before = evaluate(run)
    (run / "environment.json").write_text(text)
    assert evaluate(run) == before
    pretrain(recipe(store, budget_steps=8), run, resume=True)


def test_runs_without_a_manifest_are_opened(store, run):
    """As earlier versions wrote them."""
    (run / "run.json").unlink()
    for found in (run / "checkpoints").glob("step-*"):
        state = json.loads((found / "state.json").read_text())
        del state["run_id"]
        (found / "state.json").write_text(json.dumps(state, indent=1))
        write_manifest(found)
    evaluate(run)
    pretrain(recipe(store, budget_steps=8), run, resume=True)


def test_a_kill_while_settings_are_updated_leaves_a_run(run, monkeypatch):
    from pretextlm.training import run_directory

    class Killed(BaseException):
        pass

    opened = Run.open(run)
    changed = Run(run, opened.recipe.model_copy(update={"name": "other"}))
    for after in range(3):
        left = [after]

        def counted(original, left=left):
            def call(*of):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return original(*of)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(run_directory, "write_text", counted(run_directory.write_text))
            patch.setattr(RunManifest, "write", counted(RunManifest.write))
            with pytest.raises(Killed):
                changed.update()
        assert Run.open(run).recipe.name in (opened.recipe.name, "other")
    changed.update()
    assert Run.open(run).recipe.name == "other"
