"""How a training reports its progress to its caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """Receives the numbers of every step and messages, such as the chosen settings or a validation loss."""

    def step(self, share: float, values: Mapping[str, float]) -> None:
        """Called after every optimizer step.

        Args:
            share: of the budget that has been used, 0 … 1.
            values: numbers of the step, as in metrics.jsonl.
        """

    def note(self, text: str) -> None:
        """Called with a message for the user.

        Args:
            text: one line.
        """


class Silent:
    """Discards everything."""

    def step(self, share: float, values: Mapping[str, float]) -> None:
        pass

    def note(self, text: str) -> None:
        pass
