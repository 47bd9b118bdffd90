"""An objective and a command in a package of their own: installed from a wheel, used as if they were built in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.builders import make_store

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[1] / "outside_package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A directory with the package as its wheel unpacks it: the module, and a .dist-info with the entry points."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "word_dropout.py"):
        (source / name).write_text((PACKAGE / name).read_text(encoding="utf-8"), encoding="utf-8")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("work")
    make_store(directory / "store", train=120, validation=30)
    return directory


@pytest.fixture(scope="module")
def run(installed, work):
    """Runs a command with the package installed; returns what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])

    def command(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pretextlm", *words], cwd=work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    command.environment = environment
    return command


RECIPE = """
[data]
store = "store"
length = 32

[objective]
name = "word_dropout"
rate = 0.3

[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2

[training]
budget_steps = 12
batch_tokens = 1024
"""


@pytest.fixture(scope="module")
def trained(run, work) -> Path:
    (work / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    run("pretrain", "recipe.toml", "--out", "run")
    return work / "run"


def test_it_is_listed_and_shown(run):
    listed = json.loads(run("show", "--list", "--json"))["objectives"]
    entry = next(entry for entry in listed if entry["objective"] == "word_dropout")
    assert entry["options"]["rate"]["default"] == 0.2
    assert "Word dropout" in run("show", "word_dropout", "The river carries the letters.")


def test_it_trains_and_is_evaluated(run, trained):
    losses = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert losses
    metrics = json.loads(run("evaluate", "run", "--json"))["metrics"]
    assert metrics["loss"]["value"] > 0
    assert 0 <= metrics["gappy_accuracy"]["value"] <= 1


def test_it_fills_blanks(run, trained):
    found = json.loads(run("fill", "run", "The river carries ____.", "--json"))
    assert found["objective"] == "word_dropout"
    assert len(found["blanks"]) == 1


def test_it_has_its_place_in_the_report(run, trained):
    run("evaluate", "run")
    run("report", "run", "--out", "report.html")
    page = (trained.parent / "report.html").read_text(encoding="utf-8")
    assert "Word dropout" in page
    assert "of which some are hidden" in page
    assert "1511.06349" in page
    assert "Accuracy despite gaps" in page


def test_it_keeps_the_contract(run):
    code = (
        "from word_dropout import WordDropout; from pretextlm.testing import check_objective;"
        "check_objective(WordDropout(rate=0.3), noise=0.7)"
    )
    subprocess.run([sys.executable, "-c", code], env=run.environment, check=True)


def test_its_command_is_one_of_the_command_line(run):
    assert "droprate" in run("--help")
    assert run("droprate", "--rate", "0.3") == "30 of 100 tokens\n"


def test_a_broken_command_hinders_no_other(run, tmp_path):
    information = tmp_path / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[pretextlm.commands]\nhalf = no_such_module:half\n")
    environment = {**run.environment, "PYTHONPATH": f"{tmp_path}{os.pathsep}{run.environment['PYTHONPATH']}"}

    def command(*words):
        return subprocess.run(
            [sys.executable, "-m", "pretextlm", *words], env=environment, capture_output=True, text=True
        )

    assert command("show", "--list").returncode == 0
    done = command("half", "any", "words")
    assert done.returncode == 2
    assert "package broken cannot be loaded" in done.stderr


def test_without_the_package_its_name_is_unknown(work):
    done = subprocess.run(
        [sys.executable, "-m", "pretextlm", "show", "word_dropout", "A text."], cwd=work, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "There is no objective named 'word_dropout'" in done.stderr
