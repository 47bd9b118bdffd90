"""The wheel in an empty environment, used from a directory that knows nothing of the repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from tests.builders import documents

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of a new environment with the wheel, and with the dependencies of this one."""
    source, wheels = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheels")
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return environment / "bin" / "python"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("elsewhere")
    (place / "text.txt").write_text("\n".join(documents(120)), encoding="utf-8")
    return place


def run(python: Path, place: Path, *words: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-m", "pretextlm", *words], cwd=place, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_model_is_trained_by_the_name_of_a_recipe(python, place):
    listed = json.loads(run(python, place, "recipes", "--json"))["recipes"]
    assert {entry["name"] for entry in listed} == {
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/**/*.toml")
    }
    run(python, place, "data", "prepare", "text.txt", "--text-mode", "lines", "--vocab-size", "512", "--out", "store")
    small = ["model.hidden_size=32", "model.num_hidden_layers=2", "model.num_attention_heads=2", "data.length=32"]
    small += ["training.budget_steps=2", "training.batch_tokens=256", "training.compile=off", "data.store=store"]
    printed = json.loads(run(python, place, "pretrain", "masked", *small, "--json"))
    assert printed["run"] == "runs/masked"
    assert (place / "runs/masked/config.toml").is_file()


def test_it_holds_what_a_package_must_and_nothing_else(python, place):
    (site,) = python.parents[1].glob("lib/python*/site-packages")
    code = "import pretextlm; print(pretextlm.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.run([python, "-c", code], cwd=place, env=environment, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()) == site / "pretextlm/__init__.py"
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"pretextlm", "dependencies.pth"}
    assert (site / "pretextlm/py.typed").is_file()
    (points,) = site.glob("pretextlm-*.dist-info/entry_points.txt")
    assert "pretextlm = pretextlm.cli.main:main" in points.read_text(encoding="utf-8")
