"""The paths in a recipe: relative ones of a file, absolute ones of a run, and those of a run that was moved.

A relative path is looked for in the working directory, then beside the recipe's file. A run records absolute paths, so
that it can be used from anywhere; if it was moved together with its data, they are found by their place relative to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pretextlm.files import AnyPath

_OF_TOP = ("start", "store")
_OF_DATA = ("store", "train", "validation", "tokenizer", "forgetting_stores")
_ANYWHERE = "teacher"
"""Of an objective or task, at any depth."""

Table = Mapping[str, Any]


def found_beside(values: Table, file: AnyPath) -> dict[str, Any]:
    """Returns a recipe's tables in which relative paths that exist beside its file, and only there, lead there."""
    folder = Path(file).parent

    def change(path: str) -> str:
        beside = folder / path
        return str(beside) if not _exists(path) and _exists(str(beside)) else path

    return _changed(values, change)


def absolute(values: Table) -> dict[str, Any]:
    """Returns a recipe's tables with the paths that exist made absolute."""
    return _changed(values, lambda path: os.path.abspath(path) if _exists(path) else path)


def moved(values: Table, old: str, new: Path) -> dict[str, Any]:
    """Returns a run's tables with paths that no longer exist replaced by those that have the same place beside the run.

    Args:
        values: tables of the recipe.
        old: absolute directory of the run when it was started.
        new: its directory now.
    """

    def change(path: str) -> str:
        if _exists(path) or not os.path.isabs(path):
            return path
        there = beside_run(path, old, new)
        return there if _exists(there) else path

    return _changed(values, change)


def beside_run(path: str, old: str, new: Path) -> str:
    """Returns the place that has the same relation to a run's new directory as `path` had to its old one."""
    return os.path.normpath(new.absolute() / os.path.relpath(path, old))


def all_exist(values: Table) -> bool:
    """Returns whether all paths in a recipe's tables exist."""
    missing: list[str] = []

    def change(path: str) -> str:
        if not _exists(path):
            missing.append(path)
        return path

    _changed(values, change)
    return not missing


def _exists(path: str) -> bool:
    return os.path.exists(path) or os.path.exists(path.partition("?conll")[0])


def _changed(values: Table, change: Callable[[str], str]) -> dict[str, Any]:
    found = {key: _teachers(value, change) for key, value in values.items()}
    for name in _OF_TOP:
        found |= _at(found, name, change)
    if isinstance(found.get("data"), Mapping):
        data = dict(found["data"])
        for name in _OF_DATA:
            data |= _at(data, name, change)
        found["data"] = data
    return found


def _at(table: Table, name: str, change: Callable[[str], str]) -> dict[str, Any]:
    value = table.get(name)
    if isinstance(value, str) and value:
        return {name: change(value)}
    if isinstance(value, list | tuple):
        return {name: [change(path) if isinstance(path, str) else path for path in value]}
    return {}


def _teachers(value: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(value, Mapping):
        return value
    inner = {key: _teachers(one, change) for key, one in value.items()}
    return inner | _at(inner, _ANYWHERE, change)
