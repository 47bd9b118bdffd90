"""A new objective, task and command are one file each, a new family a map and a preset file: nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pretextlm

pytestmark = pytest.mark.slow

FILES = {
    "objectives/echoed.py": '''
"""Causal language modelling under another name."""

from typing import ClassVar

from pretextlm.objectives.causal import Causal


class Echoed(Causal):
    """As causal language modelling."""

    name: ClassVar[str] = "echoed"
    title: ClassVar[str] = "Echoed language modelling"
    summary: ClassVar[str] = "Predicts every next token, as an example."
''',
    "tasks/polarity.py": '''
"""Text classification into two classes."""

from typing import ClassVar

from pretextlm.tasks.text_classification import TextClassification


class Polarity(TextClassification):
    """Args:
    labels: the two classes.
    """

    name: ClassVar[str] = "polarity"
    labels: tuple[str, ...] = ("bad", "good")
''',
    "model/families/tiny_bert.py": '''
"""BERT under another model_type."""

from typing import ClassVar

from pretextlm.model.families.bert import Bert


class TinyBert(Bert):
    """As BERT."""

    name: ClassVar[str] = "tiny-bert"
''',
    "model/presets/tiny_bert.toml": """
family = "tiny-bert"
paper = "Somebody 2030, https://example.org"

[values]
vocab_size = 1000
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 64
type_vocab_size = 2
tie_word_embeddings = true

[presets.tiny-bert]
published = "50K"
""",
    "cli/greet.py": '''
"""`pretextlm greet`."""


def greet(name: str = "reader") -> None:
    """Greet somebody."""
    print(f"Hello, {name}.")
''',
}
RECIPE = """
[data]
train = "train.jsonl"
validation = "validation.jsonl"

[task]
name = "polarity"

[model]
architecture = "encoder"
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """Runs Python with a copy of the package to which the files were added."""
    directory = tmp_path_factory.mktemp("copy")
    source = Path(pretextlm.__file__).parent
    shutil.copytree(source, directory / "pretextlm", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        path = directory / "pretextlm" / name
        assert not path.exists()
        path.write_text(text.lstrip(), encoding="utf-8")
    (directory / "recipe.toml").write_text(RECIPE, encoding="utf-8")

    def run(*words: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(directory), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *words], cwd=directory, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_an_objective_is_one_file(python):
    listed = json.loads(python("-m", "pretextlm", "show", "--list", "--json"))["objectives"]
    assert "echoed" in [entry["objective"] for entry in listed]
    code = "from pretextlm.report.glossary import objective; print(objective('echoed').sentence)"
    assert python("-c", code) == "Predicts every next token, as an example.\n"


def test_a_task_is_one_file_and_its_recipe(python):
    code = (
        "from pretextlm.training.recipe import Recipe; recipe = Recipe.load('recipe.toml');"
        "print(recipe.task.name, *recipe.task.labels, recipe.training.learning_rate)"
    )
    assert python("-c", code) == "polarity bad good 3e-05\n"


def test_a_family_is_one_map_and_one_preset_file(python):
    code = (
        "from pretextlm.model.families.registry import FAMILIES; from pretextlm.model.presets.preset import find;"
        "config = find('tiny-bert').config(); print(FAMILIES['tiny-bert'].name, config.hidden_size);"
        "print('tiny-bert' in list(FAMILIES))"
    )
    assert python("-c", code) == "tiny-bert 32\nTrue\n"
    counted = json.loads(python("-m", "pretextlm", "params", "tiny-bert", "--json"))
    assert counted


def test_a_command_is_one_file(python):
    assert "greet" in python("-m", "pretextlm", "--help")
    assert python("-m", "pretextlm", "greet", "--name", "you") == "Hello, you.\n"
