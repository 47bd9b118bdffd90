"""Names → classes, imported only on access, with "did you mean" for an unknown name.

A registry lists the modules of one package: each module is one entry, named like its file, and holds one class whose
attribute `name` equals it. Nothing is imported to list the names.

    objectives/masked.py    class Masked: name = "masked"    OBJECTIVES["masked"] → Masked
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Generic, TypeVar

from pretextlm.errors import UserError, did_you_mean

T = TypeVar("T")

INFRASTRUCTURE = frozenset({"base", "protocol", "registry"})
"""Modules of a registry's package that are no entries; shared code lives in subpackages, which are none either."""


class Registry(Mapping[str, type[T]], Generic[T]):
    """A read-only table of classes.

    Args:
        kind: what an entry is called in messages, in the singular ("objective").
        source: full name of the package whose modules are the entries, or a table name → "module:attribute".
    """

    def __init__(self, kind: str, source: str | Mapping[str, str]) -> None:
        self.kind, self._source = kind, source

    def __getitem__(self, name: str) -> type[T]:
        if name not in self._modules:
            raise UserError(f"There is no {self.kind} named {name!r}.", did_you_mean(name, self._modules))
        place, _, attribute = self._modules[name].partition(":")
        module = importlib.import_module(place)
        if attribute:
            found: type[T] = getattr(module, attribute)
            return found
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and vars(value).get("name") == name:
                return value
        raise TypeError(f"{module.__name__} defines no class with name = {name!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Name of each entry → its module."""
        if not isinstance(self._source, str):
            return dict(self._source)
        paths = importlib.import_module(self._source).__path__
        names = (found.name for found in pkgutil.iter_modules(paths) if not found.ispkg)
        return {name: f"{self._source}.{name}" for name in names if name not in INFRASTRUCTURE}
