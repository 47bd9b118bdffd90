"""Whoever shows a run to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Called after every step, and at other moments worth a line."""

    def step(self, share: float, values: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...


class Silent:
    """Shows nothing."""

    def step(self, share: float, values: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass
