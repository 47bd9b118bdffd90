"""Names → classes, imported only when asked for, with "did you mean" for a name that is not there."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from pretextlm.errors import UserError, did_you_mean


class Registry(Mapping[str, Any]):
    """A read-only table of lazy targets "package.module:attribute".

    Args:
        kind: what the entries are, in the singular, for error messages ("objective").
        targets: name → "module:attribute".
    """

    def __init__(self, kind: str, targets: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets = dict(targets)

    def __getitem__(self, name: str) -> Any:
        if name not in self._targets:
            raise UserError(f"There is no {self.kind} named {name!r}.", did_you_mean(name, self._targets))
        module, _, attribute = self._targets[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)

    def __contains__(self, name: object) -> bool:
        return name in self._targets
