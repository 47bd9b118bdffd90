"""Predict each token from those before it, of which some are hidden (Bowman et al. 2016).

    tokens    <s> 7 8 9 4 5
    input     <s> 7 [MASK] 9 4 5
    labels     7  8 9      4 5 …      every token is predicted, hidden or not

A decoder that cannot rely on the token before it must use those further back.

A model so trained fills blanks as any causal model does: `blank_layout` is inherited.

Paper: Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.causal import Causal
from pretextlm.objectives.shared.measures import PERPLEXITY, Measure

HIDE = 0
"""Stream of random numbers that decides which tokens are hidden."""


GAPPY_ACCURACY = Measure(
    "gappy_accuracy",
    "Accuracy despite gaps",
    "Share of next tokens that were the likeliest, in a text with gaps.",
    lambda held_out: held_out.accuracy(),
)


class WordDropout(Causal):
    """Causal language modelling whose input lacks some tokens.

    Args:
        rate: share of the tokens that are hidden; the first token of a row is never hidden.
        isolate: as for causal language modelling.
    """

    name: ClassVar[str] = "word_dropout"
    title: ClassVar[str] = "Word dropout"
    paper: ClassVar[str] = "Bowman et al. 2016, https://arxiv.org/abs/1511.06349"
    summary: ClassVar[str] = "Predicts every next token from those before it, of which some are hidden."

    measures: ClassVar[tuple[Measure, ...]] = (PERPLEXITY, GAPPY_ACCURACY)

    rate: float = Field(default=0.2, gt=0, lt=1, description="share of the tokens that are hidden")

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, T) inputs with [MASK] for some tokens, and the labels of causal language modelling."""
        batch = super().collate(rows, vocabulary, rng)
        hidden = rng.uniform(HIDE, batch.input_ids.shape[1]) < self.rate
        hidden &= (batch.position_ids > 0) & ~vocabulary.is_special[batch.input_ids]
        hidden[:, 0] = False
        batch.input_ids[hidden] = vocabulary.mask
        return batch


def droprate(rate: float = 0.2) -> None:
    """Say how many of a hundred tokens a rate hides."""
    print(f"{100 * rate:.0f} of 100 tokens")
