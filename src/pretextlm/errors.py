"""The one exception that users are meant to see: what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """The user's input is wrong. The command line prints it on one screen and exits with code 2.

    Args:
        message: what is wrong and where (a path, a line number, a key).
        hint: what to do about it, as an instruction.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class DuplicateUserError(UserError):
    """A UserError that the main one of several processes reports as well."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, else all of them."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(choices)}."


def missing_extra(package: str, extra: str, purpose: str) -> UserError:
    """The error for an optional dependency that is not installed."""
    return UserError(
        f"{purpose} needs the package {package!r}, which is not installed.",
        f"Install it with: pip install 'pretextlm[{extra}]'",
    )
