"""A result that is of an older checkpoint, because the newest is broken, says so wherever it goes."""

import json

import pytest
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.training.checkpoint import steps
from pretextlm.training.pretrain import pretrain
from pretextlm.training.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose newest checkpoint has one wrong bit."""
    place = tmp_path_factory.mktemp("older")
    recipe = values(str(make_store(place / "store").path), steps=4, hidden_size=32, keep_checkpoints=2)
    pretrain(Recipe.load(recipe), place / "run")
    path = steps(place / "run" / "checkpoints")[-1] / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return place / "run"


FAULT = "step-00000004: model.safetensors does not match its hash"


@pytest.mark.parametrize(
    "arguments",
    [["evaluate"], ["generate", "A ship", "--max-new-tokens", "2"], ["fill", "A [MASK] by the river."]],
    ids=lambda arguments: arguments[0],
)
def test_json_names_the_step_and_what_is_broken(command_line, run, arguments):
    command, *rest = arguments
    done = command_line.run(command, run, *rest, "--json", cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert "is used instead" in " ".join(done.stderr.split())
    found = json.loads(done.stdout)
    found = found.get("settings", found) if command == "evaluate" else found
    assert found["step"] == 3
    assert found["broken_checkpoints"] == [FAULT]


def test_the_evaluation_the_report_and_the_model_card_name_them(command_line, run, tmp_path):
    done = command_line.run("evaluate", run, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    assert f"Of the weights of step 3: {FAULT}." in " ".join(done.stdout.split() + done.stderr.split())
    settings = json.loads((run / "evaluation.json").read_text())["settings"]
    assert (settings["step"], settings["broken_checkpoints"]) == (3, [FAULT])
    assert command_line.run("report", run, "--out", tmp_path / "page.html", cwd=run.parent).returncode == 0
    assert f"of step 3 ({FAULT})" in (tmp_path / "page.html").read_text()
    assert command_line.run("export", run, tmp_path / "hf", cwd=run.parent).returncode == 0
    assert (
        f"The weights are those of step 3, since newer ones are broken: {FAULT}."
        in (tmp_path / "hf" / "README.md").read_text()
    )
