"""Objectives and measures in one plain sentence each, for readers who have not met them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import Any

from pretextlm.config import write_toml
from pretextlm.errors import UserError


@dataclass(frozen=True)
class Objective:
    """How an objective is introduced; `paper` is shown as plain text."""

    title: str
    sentence: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Measure:
    """How a measure is introduced. `headline` ones are read by every model on the same blanks."""

    title: str
    sentence: str
    headline: bool = False


MEASURES = {
    "blank_choice_accuracy": Measure(
        "Right word chosen", "The right word scores above every other word offered with it.", headline=True
    ),
    "blank_exact_match": Measure(
        "Exact word written", "The model, free to answer anything, writes exactly the missing word.", headline=True
    ),
    "blank_log_likelihood": Measure(
        "Log-likelihood",
        "Mean log-probability of the right word among those offered, in nats per blank.",
        headline=True,
    ),
    "loss": Measure("Loss", "What training minimises, on held-out text; targets differ between objectives."),
    "lm_loss": Measure("Loss of the tokens", "The part of the loss that falls on predicted tokens, per token."),
    "pair_loss": Measure("Loss of the pairs", "The part of the loss that falls on how two passages relate, per pair."),
    "pair_accuracy": Measure("Pairs told right", "Share of pairs of passages whose relation is told right."),
    "order_loss": Measure("Loss of the order", "The part of the loss that falls on shuffled tokens, per token."),
    "span_boundary_loss": Measure(
        "Loss from the boundaries", "The part of the loss from the words beside a span, per token of it."
    ),
    "replaced_loss": Measure("Loss of the judge", "The part of the loss from telling replaced tokens, per token."),
    "replaced_accuracy": Measure(
        "Tokens judged right", "Share of all tokens rightly told as original or replaced; most are original."
    ),
    "replaced_auc": Measure(
        "Replaced told from original", "How often a replaced token seems more so than an original one; blind: half."
    ),
    "generator_accuracy": Measure("Generator's fill accuracy", "Share of hidden tokens that the generator restores."),
    "token_accuracy": Measure("Token accuracy", "Share of target tokens that were the likeliest."),
    "perplexity": Measure("Perplexity", "The exponential of the loss per token."),
    "bits_per_byte": Measure("Bits per byte", "Loss per byte of text; comparable across tokenizers."),
    "pseudo_perplexity": Measure(
        "Pseudo-perplexity", "Like perplexity, but each token is hidden in turn and read from both sides."
    ),
    "fill_accuracy": Measure("Fill accuracy", "Share of hidden tokens restored exactly."),
    "span_exact_match": Measure("Span exact match", "Share of spans written back word for word."),
    "loss_before": Measure(
        "Loss before", "Loss on held-out text of a store that is watched, before any of the new text."
    ),
    "loss_after": Measure("Loss after", "The same at the end of training on the new text."),
    "forgotten": Measure(
        "Forgotten", "Loss after less loss before, on the same held-out text: what training on new text cost there."
    ),
    "bits_per_byte_before": Measure("Bits per byte before", "Bits per byte of that text before any of the new text."),
    "bits_per_byte_after": Measure("Bits per byte after", "The same at the end."),
    "forgotten_bits_per_byte": Measure("Bits per byte forgotten", "Bits per byte after less those before."),
}

HEADLINES = tuple(name for name, measure in MEASURES.items() if measure.headline)


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
    from pretextlm.objectives.registry import build

    try:
        return tomllib.loads(write_toml(build(name).model_dump(mode="json", exclude_none=True)))
    except (UserError, ImportError):
        return {}


def measure(name: str) -> Measure:
    """A known measure in our words, a score of a task in its own, another by its name.

    What was measured on another text has that text's name behind a colon.
    """
    from pretextlm.evaluation.scores.table import SCORES

    own, _, text = name.partition(":")
    if text and own in MEASURES:
        return Measure(f"{MEASURES[own].title}: {text}", MEASURES[own].sentence)

    sentence = SCORES[name].description if name in SCORES else ""
    return MEASURES.get(name) or Measure(name.replace("_", " ").capitalize(), sentence)
