"""The commands that README, documentation and the comments of recipes tell a reader to type."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "README.ko.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "recipes").rglob("*.toml")),
]
PROGRAMS = r"(?:pretextlm|torchrun|make|sbatch|srun|kubectl|pip|python|head|cat|lm_eval)"
LAUNCHER = re.compile(r"torchrun .*?-m pretextlm ")
"""Starts several processes of a command, which the tests run as one."""


@dataclass(frozen=True)
class Command:
    """A line of a document.

    Attributes:
        place: file of the repository.
        text: as written, without its comment.
    """

    place: str
    text: str

    @property
    def words(self) -> list[str]:
        """Arguments of pretextlm; empty for another program."""
        last = LAUNCHER.sub("pretextlm ", self.text.rpartition(" | ")[2])
        words = shlex.split(last)
        return words[1:] if words[0] == "pretextlm" else []

    @property
    def piped(self) -> str:
        """The shell command whose output is read, if there is one."""
        return self.text.rpartition(" | ")[0]


def commands_of(path: Path) -> list[Command]:
    """The commands of a document in their order: of code blocks and code in running text, or of a recipe's comment."""
    text = path.read_text(encoding="utf-8")
    place = path.relative_to(ROOT).as_posix()
    lines = _of_comment(text) if path.suffix == ".toml" else _of_markdown(text)
    return [Command(place, _without_comment(line)) for line in lines]


def _of_comment(text: str) -> Iterator[str]:
    comment = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#"))
    yield from _lines(comment)


def _of_markdown(text: str) -> Iterator[str]:
    blocks = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    for language, block in blocks.findall(text):
        if language in ("", "bash", "console", "sh"):
            yield from _lines(block)
    for code in re.findall(r"(?<!`)`(pretextlm [^`]+ [^`]+)`(?!`)", blocks.sub("", text)):
        yield " ".join(code.split())


def _lines(block: str) -> Iterator[str]:
    variables: dict[str, str] = {}
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        line = line.strip().removeprefix("$ ")
        if set_to := re.fullmatch(r'([A-Z]+)="(.*)"', line):
            variables[set_to[1]] = set_to[2]
        elif re.match(PROGRAMS + r"\s", line):
            yield re.sub(r"\$([A-Z]+)", lambda match: variables.get(match[1], match[0]), line)


def _without_comment(line: str) -> str:
    """The line up to a # that begins a word outside of quotes."""
    quoted = ""
    for place, character in enumerate(line):
        if character == quoted:
            quoted = ""
        elif character in "'\"" and not quoted:
            quoted = character
        elif character == "#" and not quoted and line[place - 1] == " ":
            return line[:place].strip()
    return line.strip()
