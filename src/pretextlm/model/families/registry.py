"""The model families that can be imported and exported, by Hugging Face's model_type."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from pretextlm.model.families.base import Family
from pretextlm.registry import ClassRegistry


class FamilyRegistry(ClassRegistry[Family]):
    """A model_type may have hyphens, which a module's name cannot: "deberta-v2" is in deberta_v2.py."""

    def __getitem__(self, name: str) -> type[Family]:
        return super().__getitem__(name.replace("-", "_") if name.replace("-", "_") in self._modules else name)

    def __iter__(self) -> Iterator[str]:
        yield from (self[name].name for name in super().__iter__())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name.replace("-", "_") if isinstance(name, str) else name)

    def find(self, module: ModuleType, name: str) -> type[Family]:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Family) and value.__module__ == module.__name__:
                return value
        raise TypeError(f"{module.__name__} defines no family")


FAMILIES = FamilyRegistry("model family", "pretextlm.model.families", "pretextlm.families", Family)  # type: ignore[type-abstract]
