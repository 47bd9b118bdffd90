"""The study that needs no file: the three classic objectives, each at the size that suits the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pretextlm.model.presets.preset import AUTO
from pretextlm.objectives.registry import build
from pretextlm.study.plan import StudyPlan
from pretextlm.training.auto_size import size_for
from pretextlm.training.sizing import FITS, OPTIONS

NAME = "One text, one Transformer, three objectives"
BLANKS = 500
"""Enough that the interval of a share is ±4 %."""


def classic_study(store: Path, budget: dict[str, Any], seeds: int = 1) -> StudyPlan:
    """Returns the plan of the three objectives with the budget of each run, as a table of `StudyPlan`."""
    return StudyPlan.parse(
        {
            "name": NAME,
            "store": str(store),
            "objectives": [{"name": name, **OPTIONS.get(name, {})} for name in FITS],
            "seeds": list(range(1, seeds + 1)),
            "budget": budget,
            "model": AUTO,
            "evaluation": {"blanks": BLANKS},
        }
    )


def seconds_of_run(minutes: float, seeds: int) -> float:
    """Returns the seconds of each run if all of them together take so many minutes."""
    return 60.0 * minutes / (len(FITS) * seeds)


def vocabulary_size(minutes: float, seeds: int) -> int:
    """Returns the vocabulary that suits the budget on this machine, before the text is prepared."""
    objective = build("masked", OPTIONS["masked"])
    return size_for(objective, "seconds", seconds_of_run(minutes, seeds)).vocab_size
