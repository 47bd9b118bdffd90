"""Nothing that a command reads from a run is unpickled: a run directory from someone else cannot run code."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.builders import make_run, make_store

from pretextlm.training import checkpoint, sharded_checkpoint

pytestmark = pytest.mark.slow

WATCHED = """
import io, pickle, pathlib, _pickle
import torch

def refuse(*arguments, **options):
    pathlib.Path({mark!r}).touch()
    raise AssertionError("unpickled")

class Unpickler(pickle._Unpickler):
    load = refuse

pickle.load = pickle.loads = _pickle.load = _pickle.loads = torch.load = refuse
pickle.Unpickler = _pickle.Unpickler = pickle._Unpickler = Unpickler
torch.serialization.load = refuse
"""
"""Run before a command: leaves a mark if anything is unpickled in its process."""

COMMANDS = {
    "fill": ["fill", "RUN", "A [MASK] by the river."],
    "generate": ["generate", "RUN", "A ship", "--max-new-tokens", "2"],
    "evaluate": ["evaluate", "RUN"],
    "evaluate --text": ["evaluate", "RUN", "--text", "text.txt"],
    "export": ["export", "RUN", "out"],
    "prune": ["prune", "RUN", "--out", "out", "--sparsity", "0.5"],
    "report": ["report", "RUN", "--out", "page.html"],
    "start": ["pretrain", "recipe.toml", "start=RUN", "--out", "out"],
    "resume": ["pretrain", "RUN/config.toml", "--out", "RUN", "--resume"],
}


class Canary:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working directory with a run whose checkpoint is sharded, and a pickle wherever one once was."""
    place = tmp_path_factory.mktemp("foreign")
    run = make_run(make_store(place / "store"), place / "run")
    (found,) = checkpoint.steps(run / "checkpoints")
    groups = {"model": load_file(found / checkpoint.MODEL), "optimizer": load_file(found / checkpoint.OPTIMIZER)}
    with ThreadPoolExecutor(1) as executor:
        sharded_checkpoint.write(found / checkpoint.PARTS, groups, executor, None).result()
    (found / checkpoint.MODEL).unlink()
    (found / checkpoint.OPTIMIZER).unlink()
    checkpoint.write_manifest(found)
    for name in (".metadata", "__0_0.distcp"):
        (found / checkpoint.PARTS / name).write_bytes(pickle.dumps(Canary(place / "canary")))
    (place / "text.txt").write_text("The ship left the harbour at dawn.\n")
    shutil.copyfile(run / "config.toml", place / "recipe.toml")
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_unpickles(command_line, place, tmp_path, name):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    arguments = [one.replace("RUN", "run") for one in COMMANDS[name]]
    mark = tmp_path / "unpickled"
    command = command_line.start(*arguments, cwd=tmp_path, before=WATCHED.format(mark=str(mark)))
    assert command.wait() == 0, command.stderr
    assert not mark.exists()
    assert not (place / "canary").exists()


@pytest.mark.parametrize("name", ["00000-of-00001.safetensors", "state.json"])
def test_a_pickle_in_the_place_of_any_file_is_refused(command_line, place, tmp_path, name):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (found,) = checkpoint.steps(tmp_path / "run" / "checkpoints")
    (path,) = found.rglob(name)
    path.write_bytes(pickle.dumps(Canary(place / "canary")))
    checkpoint.write_manifest(found)
    done = command_line.run("generate", "run", "A ship", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "canary").exists()


def test_a_checkpoint_with_a_pickle_as_its_index_is_refused_by_name(command_line, place, tmp_path):
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (found,) = checkpoint.steps(tmp_path / "run" / "checkpoints")
    checkpoint.write_manifest(found)
    done = command_line.run("generate", "run", "A ship", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "parts/.metadata, written by an older version, is a pickle" in " ".join(done.stderr.split())
    assert not (place / "canary").exists()
