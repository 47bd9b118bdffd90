"""Callbacks that report the progress of a study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class StudyProgress(Protocol):
    """Callbacks of a study; it also replaces the trainer's own progress display (`step` and `note`)."""

    def begin(self, name: str, done: int, total: int) -> None: ...

    def step(self, share: float, values: Mapping[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self, name: str, result: str) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, name: str, done: int, total: int) -> None:
        pass

    def step(self, share: float, values: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def end(self, name: str, result: str) -> None:
        pass
