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


_SENTENCES = {
    "causal": "Reads from left to right and predicts every next token from those before it.",
    "masked": "Some tokens are hidden, and the model restores each of them from the text on both sides.",
    "span_corruption": (
        "Whole spans are cut out and replaced by a marker each, and a decoder writes the missing spans."
    ),
    "prefix": "The beginning of a text is read as a whole, in both directions, and the rest is written after it.",
    "denoisers": (
        "Texts are damaged in several ways (few short spans missing, many or long ones, or the end), and a token says "
        "in which; the decoder writes what is missing."
    ),
    "next_sentence": (
        "Tells whether one passage goes on where another ends, and restores tokens that are hidden in both."
    ),
    "sentence_order": (
        "Tells which of two neighbouring passages comes first, and restores tokens that are hidden in both."
    ),
    "word_structure": "Some tokens are hidden and some runs of three are shuffled; the model restores both.",
    "span_boundary": (
        "Whole spans are hidden, and each of their tokens is restored twice: from its place, and from the two words "
        "beside the span alone."
    ),
    "replaced_token": (
        "A small generator fills in hidden tokens, and the model tells of every token whether it is the original."
    ),
    "denoising": "A text with holes, its sentences in the wrong order, is written anew as it was, from start to end.",
    "masked_sequence": "One long stretch of a text is hidden from the encoder, and the decoder writes it.",
    "mixed_visibility": (
        "Some rows are read from both sides, with gaps to fill, and others from left to right, by the same weights."
    ),
    "permutation": (
        "Some tokens are predicted one after another in a random order, each from both sides and from those that came "
        "before it in that order."
    ),
    "fill_in_middle": (
        "The middle of a text is moved to its end, so that a model that reads from left to right learns to fill it in."
    ),
    "bimodal_code": "Tokens are hidden in a text and in the code that belongs to it, and restored from both.",
    "text_to_text": (
        "Writes the target that belongs to a source, whatever the task, and the missing spans of plain text."
    ),
    "distillation": "Learns what a trained model finds likely at every token, beside the text itself.",
}

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
    sentence = _SENTENCES.get(name) or f"Learns {cls.learns}"
    return Objective(cls.title, sentence, cls.paper.replace("https://", ""))


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
