"""When a run leaves by itself, with a checkpoint: `training.stop_at`, or before the end of its Slurm job."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime, timedelta

from pretextlm.errors import UserError

JOB_END = "SLURM_JOB_END_TIME"
"""Variable of a Slurm job: the seconds since 1970 at which it is ended."""
JOB_SECONDS, JOB_SHARE = 120.0, 0.1
"""A run leaves a Slurm job so many seconds before its end, or this share of the time left if that is less."""
FORMS = '"2h30m", "90m" or "3600s" from the start, "18:30" today or tomorrow, or "2030-01-31T18:30"'
_UNITS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?=.)" + "".join(rf"(?:(?P<{unit}>\d{{1,9}}(?:\.\d+)?){unit})?" for unit in _UNITS))
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def parse_stop_at(text: str, now: float) -> float:
    """Returns the time, in seconds since 1970, that `training.stop_at` names.

    Args:
        text: a duration, a time of the day, or a date and time; local unless it has an offset.
        now: seconds since 1970.

    Raises:
        ValueError: it is none of these.
    """
    if found := _DURATION.fullmatch(text):
        return now + sum(float(amount or 0) * _UNITS[unit] for unit, amount in found.groupdict().items())
    if found := _CLOCK.fullmatch(text):
        hour, minute, second = (int(part or 0) for part in found.groups())
        today = datetime.fromtimestamp(now).replace(hour=hour, minute=minute, second=second, microsecond=0)
        return (today if today.timestamp() > now else today + timedelta(days=1)).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"stop_at is {text!r}, but it is written as {FORMS}") from None


def stop_time(stop_at: str = "") -> tuple[float, str] | None:
    """Returns (seconds since 1970 at which a run that starts now leaves, why); None if it has no limit.

    Raises:
        UserError: that time is over.
    """
    now = time.time()
    limits = []
    if stop_at:
        limits.append((parse_stop_at(stop_at, now), "training.stop_at"))
        if limits[0][0] <= now:
            raise UserError(f"training.stop_at is {stop_at}, which is over.", f"Write it as {FORMS}.")
    end = os.environ.get(JOB_END, "")
    if end.isdecimal() and int(end) > now:
        left = int(end) - now
        limits.append((int(end) - min(JOB_SECONDS, JOB_SHARE * left), JOB_END))
    return min(limits, default=None)
