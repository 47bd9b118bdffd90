"""Objectives and measures in one plain sentence each, for readers who have not met them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from typing import Any

from pretextlm.config import write_toml
from pretextlm.errors import UserError
from pretextlm.objectives.shared.measures import Measure


@dataclass(frozen=True)
class Objective:
    """How an objective is introduced; `paper` is shown as plain text."""

    title: str
    sentence: str = ""
    paper: str = ""


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            "blank_choice_accuracy",
            "Right word chosen",
            "The right word scores above every other word offered with it.",
        ),
        Measure(
            "blank_exact_match",
            "Exact word written",
            "The model, free to answer anything, writes exactly the missing word.",
        ),
        Measure(
            "blank_log_likelihood",
            "Log-likelihood",
            "Mean log-probability of the right word among those offered, in nats per blank.",
        ),
        Measure("loss", "Loss", "What training minimises, on held-out text; targets differ between objectives."),
        Measure("lm_loss", "Loss of the tokens", "The part of the loss that falls on predicted tokens, per token."),
        Measure(
            "loss_before",
            "Loss before",
            "Loss on held-out text of a store that is watched, before any of the new text.",
        ),
        Measure("loss_after", "Loss after", "The same at the end of training on the new text."),
        Measure(
            "forgotten",
            "Forgotten",
            "Loss after less loss before, on the same held-out text: what training on new text cost there.",
        ),
        Measure(
            "bits_per_byte_before", "Bits per byte before", "Bits per byte of that text before any of the new text."
        ),
        Measure("bits_per_byte_after", "Bits per byte after", "The same at the end."),
        Measure("forgotten_bits_per_byte", "Bits per byte forgotten", "Bits per byte after less those before."),
    )
}
"""Measures that belong to no objective; those of an objective are in its class."""

HEADLINES = ("blank_choice_accuracy", "blank_exact_match", "blank_log_likelihood")
"""The blank-filling benchmark, on which every model answers the same questions."""


def objective(name: str) -> Objective:
    """Title and paper as the objective's class states them; one that is not known here goes by its name alone."""
    from pretextlm.objectives.registry import OBJECTIVES
    from pretextlm.tasks.registry import TASKS

    try:
        cls = OBJECTIVES[name] if name in OBJECTIVES else TASKS[name]
    except (UserError, ImportError):
        return Objective(name or "unknown objective")
    return Objective(cls.title, cls.summary, cls.paper.replace("https://", ""))


def defaults(name: str) -> dict[str, Any]:
    """The options of an objective where none is given, as a run writes them; {} for one that is not known here."""
    from pretextlm.objectives.registry import OBJECTIVES, build
    from pretextlm.tasks.registry import build as build_task

    try:
        own = build(name) if name in OBJECTIVES else build_task(name)
        return tomllib.loads(write_toml(own.model_dump(mode="json", exclude_none=True)))
    except (UserError, ImportError):
        return {}


def measure(name: str) -> Measure:
    """Returns the title and sentence of a measure or a task's score; of an unknown one, its name as the title.

    A measure on another text has that text's name after a colon.
    """
    from pretextlm.evaluation.scores.table import SCORES

    own, _, text = name.partition(":")
    if text and (known := known_measures().get(own)):
        return replace(known, title=f"{known.title}: {text}")
    sentence = SCORES[name].description if name in SCORES else ""
    return known_measures().get(name) or Measure(name, name.replace("_", " ").capitalize(), sentence)


def known_measures() -> dict[str, Measure]:
    """Returns the measures of all objectives and those that belong to none, by name."""
    from pretextlm.objectives.registry import OBJECTIVES

    found: dict[str, Measure] = {}
    for name in OBJECTIVES:
        try:
            found |= {measure.name: measure for measure in OBJECTIVES[name].measures}
        except (UserError, ImportError):  # of another package, which is broken: its runs are still reported
            continue
    return found | MEASURES
