"""Objectives and measures in one plain sentence each, for readers who have not met them."""

from __future__ import annotations

from dataclasses import dataclass

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
    "loss": Measure("Loss", "Mean cross-entropy per target; targets differ between objectives."),
    "token_accuracy": Measure("Token accuracy", "Share of target tokens that were the likeliest."),
    "perplexity": Measure("Perplexity", "The exponential of the loss per token."),
    "bits_per_byte": Measure("Bits per byte", "Loss per byte of text; comparable across tokenizers."),
    "pseudo_perplexity": Measure(
        "Pseudo-perplexity", "Like perplexity, but each token is hidden in turn and read from both sides."
    ),
    "fill_accuracy": Measure("Fill accuracy", "Share of hidden tokens restored exactly."),
    "span_exact_match": Measure("Span exact match", "Share of spans written back word for word."),
}

HEADLINES = tuple(name for name, measure in MEASURES.items() if measure.headline)


def objective(name: str) -> Objective:
    """Title and paper as the objective's class states them; one that is not known here goes by its name alone."""
    from pretextlm.objectives.base import OBJECTIVES

    try:
        cls = OBJECTIVES[name]
    except (UserError, ImportError):
        return Objective(name or "unknown objective")
    sentence = _SENTENCES.get(name) or " ".join((cls.__doc__ or "").partition("\n\n")[0].split())
    return Objective(cls.title, sentence, cls.paper.replace("https://", ""))


def measure(name: str) -> Measure:
    """A known measure in our words, another by its name."""
    return MEASURES.get(name) or Measure(name.replace("_", " ").capitalize(), "")
