"""Measures that objectives declare: how well a model does what it was trained to do, on held-out text.

Measures of different objectives are not comparable; the blank-filling benchmark (evaluation/blank_benchmark.py) is.
An objective lists its measures in `Objective.measures`; one that belongs to a single objective is defined in its file.
The loss and that of each term (`<term>_loss`, `<term>_accuracy`) need no function: listing them names them for readers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pretextlm.batch import Batch
from pretextlm.counter_rng import permute
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.metric import Metric, exponential, in_bits, ratio
from pretextlm.scoring.blank import Blank

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.protocol import Forward
    from pretextlm.scoring.scorer import Scorer

PSEUDO_TOKENS = 1024
"""Tokens that are hidden one by one for the pseudo-perplexity."""

MAX_SENTENCE_TOKENS = 64


class HeldOutView(Protocol):
    """A model and held-out rows, as a measure sees them (evaluation/held_out_metrics.py)."""

    @property
    def model(self) -> Transformer:
        """In eval mode."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def split(self) -> Split:
        """Complete documents of the validation split, sampled."""
        ...

    @property
    def full_split(self) -> Split | None:
        """The validation split they were sampled from; None if there is no more."""
        ...

    @property
    def seed(self) -> int: ...

    @property
    def scorer(self) -> Scorer | None:
        """The model as a scorer; None where it fills no blanks."""
        ...

    @property
    def forward(self) -> Forward:
        """Runs the model and those among its heads."""
        ...

    @property
    def loss(self) -> Metric | None:
        """The training loss on the rows; None without any target."""
        ...

    @property
    def targets_per_byte(self) -> float:
        """Targets of the loss by the UTF-8 bytes of the documents."""
        ...

    def batches(self, rows: int | None = None) -> Iterator[tuple[int, Batch]]:
        """Yields the rows under the objective, or a sample of them, each batch with its document."""
        ...

    def accuracy(self, masks_only: bool = False) -> Metric | None:
        """Returns the share of labels that were the likeliest token; None without any.

        Args:
            masks_only: count the labels alone whose token is [MASK] in the input.
        """
        ...


@dataclass(frozen=True)
class Measure:
    """One measure and how it is explained.

    Attributes:
        name: in evaluation.json.
        title: its heading in the report.
        sentence: what it says, for readers who have not met it.
        compute: returns its value; None where the rows have nothing to measure. Measures of loss terms have none: they
            are computed from the terms.
    """

    name: str
    title: str
    sentence: str
    compute: Callable[[HeldOutView], Metric | None] | None = None


def _perplexity(held_out: HeldOutView) -> Metric | None:
    return None if held_out.loss is None else exponential(held_out.loss)


def _bits_per_byte(held_out: HeldOutView) -> Metric | None:
    """Returns the bits that all tokens of the documents and their ends cost, by the documents' bytes."""
    loss = held_out.loss
    size = held_out.split.text_bytes
    return in_bits(loss, held_out.targets_per_byte, size) if loss is not None and size else None


def _pseudo_perplexity(held_out: HeldOutView) -> Metric | None:
    loss = pseudo_loss(held_out)
    return None if loss is None else exponential(loss)


def pseudo_loss(held_out: HeldOutView, num_tokens: int = PSEUDO_TOKENS) -> Metric | None:
    """Returns the mean of -log p(token | all others of its sentence), each token hidden alone, in nats.

    Sentences are sampled from all held-out text one by one, so standard errors are over sentences.
    Salazar et al. 2020, https://arxiv.org/abs/1910.14659.

    Args:
        held_out: the model and the text.
        num_tokens: random sentences are added until they have so many.

    Returns:
        None where the split has no sentence of 2 … MAX_SENTENCE_TOKENS tokens, or the model reads from one side only.
    """
    from pretextlm.scoring.bidirectional import BidirectionalScorer

    sentences = sampled_sentences(held_out.full_split or held_out.split, held_out.seed, num_tokens)
    if not sentences or not isinstance(held_out.scorer, BidirectionalScorer):
        return None
    blanks = [Blank(s[:place], s[place + 1 :]) for s in sentences for place in range(len(s))]
    scores = held_out.scorer.log_likelihoods(blanks, [[(token,)] for s in sentences for token in s])
    owners = np.repeat(np.arange(len(sentences)), [len(s) for s in sentences])
    costs = np.bincount(owners, weights=-np.concatenate(scores))
    return ratio(costs, np.bincount(owners), "nats", "lower")


def sampled_sentences(split: Split, seed: int, num_tokens: int) -> list[tuple[int, ...]]:
    """Returns the ids of random sentences of 2 … MAX_SENTENCE_TOKENS tokens, as many as it takes for `num_tokens`."""
    begins = split.sentences.astype(np.int64)
    ends = np.append(begins[1:], split.num_tokens)
    order = permute(np.arange(len(begins)), len(begins), seed, 0)
    lengths = (ends - begins)[order]
    order = order[(lengths >= 2) & (lengths <= MAX_SENTENCE_TOKENS)]
    enough = int(np.searchsorted(np.cumsum((ends - begins)[order]), num_tokens)) + 1
    return [tuple(split.tokens[begins[i] : ends[i]].astype(int).tolist()) for i in order[:enough].tolist()]


PERPLEXITY = Measure("perplexity", "Perplexity", "The exponential of the loss per token.", _perplexity)
BITS_PER_BYTE = Measure(
    "bits_per_byte", "Bits per byte", "Loss per byte of text; comparable across tokenizers.", _bits_per_byte
)
"""For objectives that predict every token of a text (`models_every_token`)."""
TOKEN_ACCURACY = Measure(
    "token_accuracy",
    "Token accuracy",
    "Share of target tokens that were the likeliest.",
    lambda held_out: held_out.accuracy(),
)
FILL_ACCURACY = Measure(
    "fill_accuracy",
    "Fill accuracy",
    "Share of hidden tokens restored exactly.",
    lambda held_out: held_out.accuracy(masks_only=True),
)
PSEUDO_PERPLEXITY = Measure(
    "pseudo_perplexity",
    "Pseudo-perplexity",
    "Like perplexity, but each token is hidden in turn and read from both sides.",
    _pseudo_perplexity,
)
