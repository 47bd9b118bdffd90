"""Budgets as people write them: 10min, 1h30m, 90s, 1e14flops, 2e6tokens, 3epochs."""

from __future__ import annotations

import re

from pretextlm.errors import UserError
from pretextlm.training.budget import BudgetKind

SECONDS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
UNITS: dict[str, BudgetKind] = {"flops": "flops", "flop": "flops", "tokens": "tokens", "epochs": "epochs"}
_NUMBER = r"\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_PART = re.compile(rf"({_NUMBER})\s*(sec|s|min|m|h|d)")
_WHOLE = re.compile(rf"({_NUMBER})\s*(flops?|tokens|epochs)")


def parse_budget(text: str) -> tuple[BudgetKind, float]:
    """Read a budget.

    Returns:
        Its unit, "seconds" for a time, and its amount.

    Raises:
        UserError: it is none.
    """
    plain = text.strip().lower()
    if found := _WHOLE.fullmatch(plain):
        kind, amount = UNITS[found[2]], float(found[1])
    else:
        parts = list(_PART.finditer(plain))
        left = _PART.sub("", plain).strip()
        kind, amount = "seconds", sum(float(part[1]) * SECONDS[part[2]] for part in parts)
        if left or not parts:
            raise UserError(f"{text!r} is no budget.", "For example: 10min, 1h30m, 90s, 1e14flops, 2e6tokens.")
    if not amount > 0:
        raise UserError(f"A budget of {text!r} trains nothing.", "Give more than 0.")
    return kind, amount
