"""The recipes that come with the package, by name: "bert", "tasks/sst2" or "sst2", "studies/three_objectives"."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from pretextlm.errors import UserError, did_you_mean
from pretextlm.files import AnyPath

DIRECTORY = Path(__file__).parent / "recipes"
"""In a checkout a link to its `recipes`, in a wheel the files themselves."""

Command = Literal["pretrain", "finetune", "compare"]


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe of the package.

    Attributes:
        name: path below the directory of recipes, without ".toml".
        path: of the file.
        command: that runs it.
        about: the first sentence of its comment.
    """

    name: str
    path: Path
    command: Command
    about: str


@cache
def shipped_recipes() -> dict[str, ShippedRecipe]:
    """Returns the recipes by name."""
    paths = sorted(DIRECTORY.rglob("*.toml"), key=lambda path: (len(path.parts), path))
    found = [_read(path.relative_to(DIRECTORY).with_suffix("").as_posix(), path) for path in paths]
    return {recipe.name: recipe for recipe in found}


def find_shipped(given: AnyPath) -> ShippedRecipe | None:
    """Returns the recipe of a name; its directory and the path in a checkout, recipes/NAME.toml, may be given, too."""
    name = re.sub(r"\.toml$", "", Path(given).as_posix(), flags=re.IGNORECASE).removeprefix("recipes/")
    known = shipped_recipes()
    return known.get(name) or next((recipe for recipe in known.values() if recipe.path.stem == name), None)


def recipe_file(given: AnyPath) -> Path:
    """Returns the path of a recipe: of the given file if there is one, else of the package's recipe of that name.

    Raises:
        UserError: neither exists.
    """
    path = Path(given)
    if path.exists() and not path.is_dir():
        return path
    shipped = find_shipped(path)
    if shipped is not None:
        return shipped.path
    stems = {*shipped_recipes(), *(recipe.path.stem for recipe in shipped_recipes().values())}
    near = did_you_mean(path.stem, stems)
    kind = "is a directory" if path.is_dir() else "is neither a file nor the name of a recipe"
    raise UserError(
        f"Cannot read {os.fspath(given)}: it {kind}.",
        "Give the path of a TOML file, or a name: pretextlm recipes lists them."
        + (f" {near}" if near.startswith("Did") else ""),
    )


def _read(name: str, path: Path) -> ShippedRecipe:
    text = path.read_text(encoding="utf-8")
    values = tomllib.loads(text)
    studied = "objectives" in values or "entries" in values
    command: Command = "compare" if studied else "finetune" if "task" in values else "pretrain"
    return ShippedRecipe(name, path, command, _first_sentence(text))


def _first_sentence(text: str) -> str:
    """Returns the first sentence of the comment at the top of a file, or its first paragraph if it has no full stop."""
    lines = []
    for line in text.splitlines():
        if not line.removeprefix("#").strip() or not line.startswith("#"):
            break
        lines.append(line.removeprefix("#").strip())
    return re.split(r"\.\s+(?=[A-Z])", " ".join(lines))[0].rstrip(".")
