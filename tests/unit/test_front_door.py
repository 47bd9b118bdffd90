"""`import pretextlm as pt`: a small, quick and complete list of public names."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pretextlm as pt
from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.tasks.registry import TASKS

STUB = Path(pt.__file__).with_suffix(".pyi")
HEAVY = {"torch", "numpy", "pydantic", "tokenizers", "scipy", "rich", "typer", "transformers"}
MOST_SECONDS = 0.05


def names_of_the_stub() -> dict[str, str]:
    """Public name → module, as type checkers read them."""
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names), "re-exports are `X as X`"
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_the_stub_lists_what_is_imported_on_access():
    stub = names_of_the_stub()
    assert {"__version__", *stub} == set(pt.__all__) <= set(dir(pt))
    assert len(pt.__all__) == len(set(pt.__all__))
    for name, module in stub.items():
        assert getattr(pt, name) is getattr(sys.modules[module], name)
        assert getattr(pt, name).__module__ == module, "a name points to the module that defines it"


def test_every_built_in_objective_and_task_is_a_public_name():
    for registry in (OBJECTIVES, TASKS):
        for name in registry:
            assert getattr(pt, registry[name].__name__) is registry[name]


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        pt.pretrian
    with pytest.raises(ImportError):
        from pretextlm import nothing_of_that_name  # noqa: F401


WRITERS = {
    "data/tokenizer_probe.py": "answers from a process of its own",
    "training/watchdog.py": "the last words of a process that hangs",
    "evaluation/harness.py": "sends what lm-eval prints to stderr",
    "training/trackers/trackio.py": "sends what trackio prints to stderr",
}
"""Modules outside the command line that mention an output stream → why."""


def test_only_the_command_line_prints():
    found = set()
    for path in STUB.parent.rglob("*.py"):
        name = path.relative_to(STUB.parent).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            prints = isinstance(node, ast.Name) and node.id == "print"
            streams = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr")
            if (prints or streams) and not name.startswith("cli/"):
                found.add(name)
    assert found == WRITERS.keys()


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)


def test_the_import_loads_nothing_heavy():
    found = python("-c", "import sys, pretextlm; dir(pretextlm); print(*sys.modules)").stdout.split()
    assert not HEAVY & set(found)
    assert [name for name in found if name.startswith("pretextlm")] == ["pretextlm"]


def test_the_import_takes_less_than_fifty_milliseconds():
    def seconds() -> float:
        lines = python("-X", "importtime", "-c", "import pretextlm").stderr.splitlines()
        line = next(line for line in lines if line.split("|")[-1].strip() == "pretextlm")
        return float(line.split("|")[1]) / 1e6

    assert min(seconds() for _ in range(3)) < MOST_SECONDS
