"""Whatever a name, a text or a model holds, the terminal gets nothing that it obeys, and no bracket is markup."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import pretextlm
from pretextlm.cli.shared import console
from pretextlm.cli.shared.console import json_line
from pretextlm.printable import COMMANDING, printable

CLI = Path(pretextlm.__file__).parent / "cli"
LINK = "\x1b]8;;http://example.org\x07"
HOSTILE = f"{LINK}\x1b[2J\x9b31m\x7f\u202eevil\u2066[/x][red]:cat:\r"
SHAPE = ["model.hidden_size=16", "model.num_hidden_layers=1", "model.num_attention_heads=2", "data.length=16"]
SHORT = ["training.budget_steps=1", "training.batch_tokens=64", "training.compile=off", "training.validations=1"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31m", r"\x1b[31m"),
        ("a\x9b\x00\x7f\r", r"a\x9b\x00\x7f\r"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("half \udcff", r"half \udcff"),
        ("lines\nand\ttabs stay", "lines\nand\ttabs stay"),
        ("한국어 👩\u200d👩\u200d👧 \u200f C:\\x1b", "한국어 👩\u200d👩\u200d👧 \u200f C:\\x1b"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text, shown):
    assert printable(text) == shown


def test_json_is_escaped_as_json_and_keeps_its_value(monkeypatch):
    value = {"text": HOSTILE, "half": "\udcff", "plain": "한국어 é 👩"}
    line = json_line(value)
    assert json.loads(line) == value
    assert not COMMANDING.search(line)
    assert "한국어 é 👩" in line
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert json.loads(json_line(value).encode("ascii")) == value


def test_the_command_line_prints_in_one_place():
    """Whatever else printed would have to think of control characters and markup by itself."""
    for path in CLI.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        if path != Path(console.__file__):
            assert not names & {"print", "typer.echo", "click.echo", "sys.stdout.write", "Console"}, path
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if ast.unparse(call.func) == "TextColumn":
                assert [ast.unparse(one) for one in call.keywords] == ["markup=False"], f"{path}, line {call.lineno}"
            assert not ast.unparse(call.func).endswith("from_markup"), path


@pytest.fixture(scope="module")
def place(tmp_path_factory, command_line):
    """A directory with a hostile name, in it a store of a hostile source and a run that learnt it."""
    folder = tmp_path_factory.mktemp("hostile") / HOSTILE.replace("/", "|")
    folder.mkdir()
    text = "\n\n".join(f"{number} rivers {HOSTILE} and a ship." for number in range(40))
    (folder / "text.txt").write_text(text, encoding="utf-8")
    (folder / "recipe.toml").write_text('[data]\nstore = "store"\n[objective]\nname = "causal"\n')
    prepare = ["data", "prepare", folder / "text.txt", "--text-mode", "paragraphs", "--tokenizer", "character"]
    options = ["--vocab-size", 128, "--sentinels", 4, "--validation", 0.2, "--licence", HOSTILE, "--out", "store"]
    check(command_line.run(*prepare, *options, cwd=folder))
    check(command_line.run("pretrain", "recipe.toml", *SHAPE, *SHORT, "--out", folder / "run", cwd=folder))
    return folder


def check(done, code: int = 0) -> str:
    """The output of a command, after it has been seen to end as it should and to hold no control character."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for text in (done.stdout, done.stderr):
        assert not COMMANDING.search(text), text
    return done.stdout + done.stderr


def texts(value: object) -> str:
    """All texts in a JSON value, one after another."""
    if isinstance(value, dict | list):
        return "\n".join(map(texts, value.values() if isinstance(value, dict) else value))
    return str(value)


COMMANDS = {
    "inspect": ["data", "inspect", "store"],
    "inspect as JSON": ["data", "inspect", "store", "--json"],
    "show": ["show", "causal", HOSTILE],
    "show with a store": ["show", "causal", HOSTILE, "--store", "store"],
    "show as JSON": ["show", "masked", HOSTILE, "--json"],
    "generate": ["generate", "run", HOSTILE, "--max-new-tokens", "9"],
    "generate as JSON": ["generate", "run", HOSTILE, "--max-new-tokens", "9", "--json"],
    "fill": ["fill", "run", f"A [MASK] {HOSTILE}"],
    "evaluate": ["evaluate", "run", "--tokens", "64"],
    "params": ["params", "run"],
    "report": ["report", "run"],
    "prune": ["prune", "run", "--sparsity", "0.5", "--out", "pruned"],
    "export": ["export", "run", "exported", "--no-check"],
    "dry run": ["pretrain", "recipe.toml", *SHAPE, *SHORT, "--dry-run"],
}
REFUSED = {
    "a command": [HOSTILE],
    "an option": ["show", f"--{HOSTILE}"],
    "a number": ["generate", "run", "--top-k", HOSTILE],
    "an objective": ["show", HOSTILE],
    "a path": ["generate", HOSTILE],
    "an override": ["pretrain", "recipe.toml", f"objective.name={HOSTILE}"],
    "a source": ["data", "prepare", HOSTILE, "--out", "other"],
    "a key": ["pretrain", "recipe.toml", f"training={{'{HOSTILE}' = 1}}"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_results_hold_nothing_that_a_terminal_obeys(name, place, command_line):
    shown = check(command_line.run(*COMMANDS[name], cwd=place))
    if name in ("inspect", "generate"):
        assert "[/x]" in shown, "brackets are text"
        assert r"\x1b" in shown
    if name in ("inspect as JSON", "generate as JSON"):
        assert HOSTILE in texts(json.loads(shown))


@pytest.mark.parametrize("name", REFUSED)
def test_errors_hold_nothing_that_a_terminal_obeys(name, place, command_line):
    assert check(command_line.run(*REFUSED[name], cwd=place), code=2).lstrip().startswith("error: ")


@pytest.mark.parametrize(
    "command", [["--help"], ["show", "masked", "Ein Fluß → 한국어"], ["recipes"], ["show", "--list"]]
)
def test_an_encoding_that_lacks_characters_ends_no_command(command):
    done = subprocess.run(
        [sys.executable, "-m", "pretextlm", *command],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii")
    assert done.stderr == b""
