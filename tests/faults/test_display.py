"""What a command shows never ends its work: a pipe that is closed, a log on a full disk, a terminal that is gone."""

import json

import pytest
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.config import write_toml
from pretextlm.training.checkpoint import newest

PLACES = {
    "closed pipe": "import os, sys; reader, writer = os.pipe(); os.close(reader)",
    "terminal that is gone": "import os, sys; reader, writer = os.openpty(); os.close(reader)",
    "full device": "import os, sys; writer = os.open('/dev/full', os.O_WRONLY)",
}
STDOUT, STDERR = (
    f"; os.dup2(writer, {number}); sys.{name} = open({number}, 'w', buffering=1, closefd=False)"
    for number, name in ((1, "stdout"), (2, "stderr"))
)
STREAMS = {"stderr": STDERR, "both": STDOUT + STDERR}
STUDY = {
    "store": "store",
    "objectives": ["causal"],
    "seeds": [1],
    "budget": {"tokens": 512},
    "length": 32,
    "model": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    "training": {"batch_tokens": 256, "device": "cpu", "compile": "off", "validation_rows": 4},
    "evaluation": {"documents": 2, "blanks": 2, "prompts": 1},
}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    place = tmp_path_factory.mktemp("display")
    make_store(place / "store")
    (place / "text.txt").write_text("".join(f"Ship number {one} is at sea.\n" for one in range(200)))
    (place / "recipe.toml").write_text(write_toml(values("store", steps=3, hidden_size=16)))
    (place / "study.toml").write_text(write_toml(STUDY))
    return place


def lost(where, streams):
    """Returns the exit code of a command that did its work, but could not print the result to a disk or terminal."""
    return 2 if streams == "both" and where != "closed pipe" else 0


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("streams", STREAMS)
def test_training_is_finished(command_line, directory, tmp_path, where, streams):
    arguments = ("pretrain", "recipe.toml", "--out", tmp_path / "run")
    command = command_line.start(*arguments, cwd=directory, before=PLACES[where] + STREAMS[streams])
    assert command.wait() == lost(where, streams)
    assert newest(tmp_path / "run" / "checkpoints").step == 3
    assert json.loads((tmp_path / "run" / "cost.json").read_text())["steps"] == 3


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("streams", STREAMS)
def test_a_store_is_prepared(command_line, directory, tmp_path, where, streams):
    arguments = ("data", "prepare", "text.txt", "--vocab-size", "500", "--text-mode", "lines", "--out")
    command = command_line.start(*arguments, tmp_path / "store", cwd=directory, before=PLACES[where] + STREAMS[streams])
    assert command.wait() == lost(where, streams)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("where", PLACES)
def test_a_study_is_finished(command_line, directory, tmp_path, where):
    arguments = ("compare", "study.toml", "--out", tmp_path / "study")
    command = command_line.start(*arguments, cwd=directory, before=PLACES[where] + STREAMS["both"])
    assert command.wait() == lost(where, "both")
    assert list((tmp_path / "study").glob("*.html"))


def test_results_that_nobody_reads_are_no_error(command_line, directory):
    before = PLACES["closed pipe"] + STDOUT
    command = command_line.start("data", "inspect", "store", cwd=directory, before=before)
    assert (command.wait(), command.stderr) == (0, "")


def test_results_that_a_full_disk_does_not_take_are_an_error(command_line, directory):
    before = PLACES["full device"] + STDOUT
    command = command_line.start("data", "inspect", "store", cwd=directory, before=before)
    assert command.wait() == 2
    assert "No space left" in command.stderr
