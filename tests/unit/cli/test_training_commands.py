"""`doctor` and `pretrain` as they are typed, alone and under torchrun."""

import json
import subprocess
import sys

import pytest
from tests.builders import make_store

pytestmark = pytest.mark.slow

RECIPE = """
name = "small"
[data]
store = "{store}"
length = 64
[objective]
name = "causal"
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
[training]
budget_tokens = 1e9
batch_tokens = 512
dtype = "fp32"
compile = "off"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    place = tmp_path_factory.mktemp("commands")
    store = make_store(place / "store")
    (place / "small.toml").write_text(RECIPE.format(store=store.path))
    return place / "small.toml"


def run(*words, launcher=("-m",), cwd):
    return subprocess.run(
        [sys.executable, *launcher, "pretextlm", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=240
    )


def test_help_names_tables_in_their_brackets(tmp_path):
    """What stands in brackets is a tag to the library that prints help, unless it is told otherwise."""
    for command, words in (
        ("finetune", ["[data]", "[task]", "[tuning]"]),
        ("compare", ["seeds=[1,2]"]),
        ("fill", ["[MASK]"]),
    ):
        found = run(command, "--help", cwd=tmp_path).stdout
        assert [word for word in words if word not in found] == []


def test_doctor_prints_one_object_without_a_gpu_and_writes_nothing(command_line, tmp_path):
    done = command_line.run("doctor", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {"machine", "training"}
    assert list(tmp_path.iterdir()) == []
    shown = command_line.run("doctor", cwd=tmp_path)
    assert "pip install 'pretextlm[" in shown.stdout or "missing" not in shown.stdout


def test_a_dry_run_prints_its_numbers_and_writes_nothing(command_line, recipe, tmp_path):
    done = command_line.run("pretrain", recipe, "training.budget_steps=5", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"]["steps"] == 5, "a budget on the command line takes the place of the recipe's"
    assert found["export"] == "Exports as NanoChatForCausalLM (transformers)"
    shown = command_line.run("pretrain", recipe, "--dry-run", cwd=tmp_path).stdout
    for name in ("parameters", "memory", "a step", "the run", "speed", "utilisation", "time", "disk", "afterwards"):
        assert f"\n{name} " in shown
    assert list(tmp_path.iterdir()) == []


def test_torchrun_trains_one_model_of_which_the_first_process_alone_speaks(recipe, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m")
    words = ("pretrain", recipe, "training.budget_steps=5", "--json", "--out", "run")
    done = run(*words, launcher=launcher, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["last"]["validation"]["step"] == 5
    told = [line for line in done.stderr.splitlines() if "validation loss" in line]
    assert len(told) == len(set(told)) == 6
    assert "Warning" not in done.stderr
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 6
    wrong = run("pretrain", recipe, "training.budget_stepps=5", launcher=launcher, cwd=tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.count("error: ") == 1
    assert "Did you mean 'budget_steps'?" in wrong.stderr
