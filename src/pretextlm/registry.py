"""Names → objectives, tasks, model families and commands: built in, registered at run time, or of another package.

A registry's built-in entries are the modules of one package: each module is one entry, named like its file. Entries of
other packages come from entry points, and `register` adds one at run time. Nothing is imported to list the names; an
entry's module is imported on access.

    objectives/masked.py    class Masked: name = "masked"    OBJECTIVES["masked"] → Masked
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Generic, TypeVar

from pretextlm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

E = TypeVar("E")
T = TypeVar("T")

INFRASTRUCTURE = frozenset({"base", "protocol", "registry", "main"})
"""Modules of a registry's package that are no entries; shared code lives in subpackages, which are none either."""


class Registry(Mapping[str, E], Generic[E]):
    """A table of entries that other packages can extend.

    Args:
        kind: name of an entry in messages, in the singular ("objective").
        package: full name of the package whose modules are the built-in entries.
        group: name of the entry points by which other packages add entries.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._registered: dict[str, E] = {}

    def find(self, module: ModuleType, name: str) -> E:
        """Returns the entry that a built-in module holds. Subclasses say how it is found."""
        raise NotImplementedError

    def check(self, entry: object) -> E:
        """Returns an entry that was written elsewhere if it is one of this registry.

        Raises:
            UserError: it is not.
        """
        raise NotImplementedError

    def __getitem__(self, name: str) -> E:
        if not isinstance(name, str):
            raise UserError(f"The name of {self.kind} is text, not {name!r:.80}.", did_you_mean("", self))
        if name in self._registered:
            return self._registered[name]
        if name in self._modules:
            return self.find(importlib.import_module(self._modules[name]), name)
        if name in self._entry_points:
            entry = self._registered[name] = self._load(self._entry_points[name])
            return entry
        raise UserError(f"There is no {self.kind} named {name!r}.", did_you_mean(name, self))

    def __iter__(self) -> Iterator[str]:
        yield from dict.fromkeys([*self._modules, *self._entry_points, *self._registered])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._registered or name in self._modules or name in self._entry_points

    def add(self, name: str, entry: E) -> None:
        """Adds an entry at run time. Adding the same entry again has no effect.

        Raises:
            UserError: the name is taken by another entry.
        """
        if name in self and self[name] is not entry:
            raise UserError(f"The name {name!r} is taken by another {self.kind}.", "Choose another name.")
        self._registered[name] = entry

    def unregister(self, name: str) -> None:
        """Removes an entry that was added at run time."""
        self._registered.pop(name, None)

    @cached_property
    def _modules(self) -> dict[str, str]:
        """Name of each built-in entry → its module."""
        paths = importlib.import_module(self.package).__path__
        names = (found.name for found in pkgutil.iter_modules(paths) if not found.ispkg)
        return {self.name_of(name): f"{self.package}.{name}" for name in names if name not in INFRASTRUCTURE}

    def name_of(self, module: str) -> str:
        """Returns the name of the entry that a module of the package holds: that of the module."""
        return module

    @cached_property
    def _entry_points(self) -> dict[str, EntryPoint]:
        """Name of each entry of other packages → where it is found."""
        from importlib.metadata import entry_points

        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            taken = "pretextlm" if point.name in self._modules else _package(found.get(point.name))
            if taken and (point.name not in found or found[point.name].value != point.value):
                raise UserError(
                    f"The package {_package(point)} adds another {self.kind} named {point.name!r}: {taken} has one.",
                    f"Remove it: pip uninstall {_package(point)}",
                )
            found[point.name] = point
        return found

    def _load(self, point: EntryPoint) -> E:
        """Returns the entry of another package. Raises UserError, with the package's name, where it is broken."""
        try:
            entry = self.check(point.load())
        except Exception as error:
            raise UserError(
                f"The {self.kind} {point.name!r} of the package {_package(point)} cannot be loaded: {error}",
                f"Update the package, or remove it: pip uninstall {_package(point)}",
            ) from error
        return entry


class ClassRegistry(Registry[type[T]], Generic[T]):
    """A registry of the subclasses of one base, each with its name in the class attribute `name`.

    Args:
        kind: as for :class:`Registry`.
        package: as for :class:`Registry`.
        group: as for :class:`Registry`.
        base: class that every entry extends.
    """

    def __init__(self, kind: str, package: str, group: str, base: type[T]) -> None:
        super().__init__(kind, package, group)
        self.base = base

    def find(self, module: ModuleType, name: str) -> type[T]:
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__ and vars(value).get("name") == name:
                return value
        raise TypeError(f"{module.__name__} defines no class with name = {name!r}")

    def check(self, entry: object) -> type[T]:
        if not isinstance(entry, type) or not issubclass(entry, self.base):
            raise UserError(f"{entry!r} is no subclass of {self.base.__name__}.")
        name = vars(entry).get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+([_-][a-z0-9]+)*", name):
            raise UserError(
                f"{entry.__name__}.name is {name!r}.", 'Give it a name of small letters, such as: name = "my_objective"'
            )
        return entry

    def register(self, cls: type[T]) -> type[T]:
        """Adds a class under its name, for this process.

        Args:
            cls: subclass of the registry's base.

        Returns:
            The class, so that this may be used as a decorator.

        Raises:
            UserError: the class is none of this registry, or its name is taken.
        """
        self.add(str(self.check(cls).name), cls)  # type: ignore[attr-defined]
        return cls


def _package(point: EntryPoint | None) -> str:
    """Returns the name of the package that an entry point belongs to; "" for None."""
    return "" if point is None else point.dist.name if point.dist else point.value
