"""The documents name settings, files, commands and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from pretextlm.cli.main import app
from pretextlm.objectives.registry import OBJECTIVES
from pretextlm.tasks.registry import TASKS
from pretextlm.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "README.ko.md"]
SETTING = re.compile(
    r"(?<![\w./-])(?:recipe\.)?((?:training|data|evaluation|tuning|model|task|objective)\.[a-z_0-9.]+)"
)
NOT_SETTINGS = re.compile(r"\.(json|jsonl|md|safetensors)$")
PLACE = re.compile(r"(?<![\w./-])(?:tests|benchmarks|src|recipes|docs|examples|launch)/[\w/.-]*\w")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fields_of(cls: Any) -> dict[str, Any]:
    return dict(getattr(cls, "model_fields", {}))


def exists(setting: str) -> bool:
    """Whether a dotted name is a setting of a recipe; of a task or an objective, whether any has it."""
    section, name, *rest = setting.split(".")
    if section in ("task", "objective"):
        classes = TASKS if section == "task" else OBJECTIVES
        return name == "name" or any(name in fields_of(classes[one]) for one in classes)
    cls = fields_of(Recipe)[section].annotation
    for part in [name, *rest]:
        if not fields_of(cls):
            return True
        if part not in fields_of(cls):
            return False
        cls = fields_of(cls)[part].annotation
    return True


def commands(text: str) -> list[list[str]]:
    """Return the arguments of every call of pretextlm in the code blocks of a document, without comments."""
    blocks = [block for language, block in BLOCK.findall(text) if language in ("", "bash")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    calls = [line.partition("pretextlm ")[2] for line in lines if re.match(r"(\S+ )*?(-m )?pretextlm ", line)]
    return [shlex.split(call.replace("$C", ""), comments=True) for call in calls]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_settings_and_files_that_a_document_names_exist(document):
    text = document.read_text(encoding="utf-8")
    inline = " ".join(re.findall(r"`[^`\n]+`", text))
    settings = {name.rstrip(".") for name in SETTING.findall(inline) if not NOT_SETTINGS.search(name)}
    assert [name for name in sorted(settings) if not exists(name)] == []
    assert [place for place in sorted(set(PLACE.findall(text))) if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_a_document_shows_have_these_options_and_settings(document):
    root: Any = typer.main.get_command(app)
    for arguments in commands(document.read_text(encoding="utf-8")):
        command, rest = root, arguments
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in rest if word.startswith("--")} <= known | {"--help"}, arguments
        if command.name in ("pretrain", "finetune"):
            settings = [word.partition("=")[0] for word in rest if re.match(r"[a-z_.]+=", word)]
            top = set(fields_of(Recipe))
            assert [name for name in settings if not (exists(name) if "." in name else name in top)] == [], arguments
        if command.name == "compare":
            settings = [word.partition("=")[0] for word in rest if re.match(r"recipe\.[a-z_.]+\.[a-z_.]+=", word)]
            assert [name for name in settings if not exists(name.removeprefix("recipe."))] == [], arguments


def test_unknown_names_would_be_found():
    assert not exists("training.clip")
    assert not exists("model.attention.normalise_heads")
    assert exists("model.attention.qk_norm")
    assert exists("task.choices")
    assert commands("```bash\ntorchrun -m pretextlm pretrain A.toml \\\n  --out B  # c\n```\n") == [
        ["pretrain", "A.toml", "--out", "B"]
    ]
