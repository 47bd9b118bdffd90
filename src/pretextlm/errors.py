"""The exception for wrong input, with a message that locates the fault and a hint that says how to correct it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Raised for wrong input. The command line prints message and hint, and exits with code 2.

    Args:
        message: the fault and its location (a path, a line number, a key).
        hint: an instruction that corrects it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class DuplicateUserError(UserError):
    """A UserError that the main process reports as well, so that the other processes need not."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the most similar known name or, if none is similar, all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(choices)}."


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """Returns the error for an optional dependency that is not installed.

    Args:
        package: name on the package index.
        extra: of this package, that installs it.
        purpose: the feature that needs it, as the subject of a sentence.
    """
    return UserError(
        f"{purpose} needs the package {package!r}, which is not installed.",
        f"Install it with: pip install 'pretextlm[{extra}]'",
    )
