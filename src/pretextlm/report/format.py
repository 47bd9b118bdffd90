"""Formatting numbers for people: short, with a unit, and no more digits than are significant."""

from __future__ import annotations

import math

from pretextlm.metric import Better

FRACTIONS = frozenset({"fraction", "accuracy", "proportion", "share", "ratio"})
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_WORDS = ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"))
THIN = "\N{NARROW NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def plain(value: float, digits: int = 3) -> str:
    """Returns a number with about `digits` significant digits and thousands separators: 12,345 · 3.21 · 0.0421."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 8)}f}".replace("-", MINUS)


def metric(value: float, unit: str) -> str:
    """Returns a measurement without its unit; fractions in per cent."""
    if not math.isfinite(value):
        return plain(value)
    if unit in FRACTIONS:
        return f"{100 * value:.1f}%".replace("-", MINUS)
    return plain(value, 3 if abs(value) < 100 else 4)


def spread(half_width: float, value: float, unit: str) -> str:
    """Returns the half-width of an interval with the decimals of its value."""
    if unit in FRACTIONS:
        return f"{100 * half_width:.1f}"
    shown = metric(value, unit)
    decimals = len(shown.partition(".")[2])
    return f"{half_width:,.{decimals}f}"


def points(difference: float) -> str:
    """Returns a signed difference of two fractions in percentage points."""
    return f"{100 * difference:+.1f}".replace("-", MINUS)


def si(value: float, unit: str = "") -> str:
    """Returns three significant digits with an SI prefix: 12.3 M, 4.5 P."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{plain(value / factor)}{THIN}{prefix}{unit}"
    return f"{plain(value)}{THIN}{unit}" if unit else plain(value)


def tick(value: float) -> str:
    """Returns a round number for an axis: 0 · 500 · 2.5 M."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:g}{THIN}{prefix}"
    return f"{value:g}".replace("-", MINUS)


def direction(better: Better | None) -> str:
    """Returns which values are better, as a sentence."""
    if isinstance(better, str | None):
        return f"{better.capitalize()} is better." if better else ""
    return f"Best is {better:g}."


def words(value: float) -> str:
    """Returns 1.2 million; below a million, the integer."""
    for factor, name in _WORDS:
        if abs(value) >= factor:
            return f"{plain(value / factor)} {name}"
    return f"{value:,.0f}"


def duration(seconds: float) -> str:
    """Returns 45 s · 12 min 5 s · 3 h 20 min."""
    if seconds < 10:
        return f"{seconds:.1f}{THIN}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{n}{THIN}{name}" for n, name in parts if n) or f"0{THIN}s"


def duration_in_words(seconds: float) -> str:
    """Returns 90 seconds · 2 minutes · 12 min 5 s · 3 hours."""
    for size, noun in ((3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return count(round(seconds / size), noun) if seconds % size == 0 else duration(seconds)
    return f"{seconds:g} seconds"


def listing(items: list[str]) -> str:
    """Returns "a, b and c"."""
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def count(n: int, noun: str) -> str:
    """Returns "1 seed", "3 seeds"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
