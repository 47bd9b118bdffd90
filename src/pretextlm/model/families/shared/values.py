"""Values of a config.json, read with the family's defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pretextlm.errors import UserError


def complete(values: Mapping[str, Any], needed: Iterable[str], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in defaults for values that are absent or null.

    Args:
        values: Values of a config.json.
        needed: Names of integers that have no default.
        defaults: Default of each other value.

    Raises:
        UserError: A value is absent, or of another type than its default.
    """
    filled = {**values, **{name: value for name, value in defaults.items() if values.get(name) is None}}
    kinds: dict[str, type] = {name: type(value) for name, value in defaults.items()}
    for name, kind in {**dict.fromkeys(needed, int), **kinds}.items():
        value = filled.get(name)
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(f"The value {name!r} is {value!r:.80}.", f"config.json must give {KINDS[kind]} there.")
    return filled


KINDS: Mapping[type, str] = {int: "an integer", float: "a number", bool: "true or false", str: "a name"}


def refuse(values: Mapping[str, Any], *names: str) -> None:
    """Refuses options that our transformer does not have.

    Raises:
        UserError: One of them is on.
    """
    for name in names:
        if values.get(name):
            raise UserError(f"A model with {name} = {values[name]!r:.80} is not known.", "Only those without it are.")
