"""An objective with the promises that depend on its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import Batch, Rows
from pretextlm.data.store import Split
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.testing.unique_text import batches, example_vocabulary, unique_split

Text = Literal["plain", "pairs", "both"]

SIZES: Mapping[Text, tuple[int, int]] = {"plain": (60, 0), "pairs": (0, 120), "both": (40, 80)}
"""Kind of text → (plain documents, pairs) of it."""


@dataclass(frozen=True)
class Contract:
    """An objective with the promises that depend on its options.

    Attributes:
        objective: to be checked.
        text: the documents that it reads: "plain", "pairs" of a source and a target, or "both".
        noise: least share of the rows that come out otherwise in another epoch or under another seed; 0 for an
            objective without random choices. Some rows are equal by chance: short texts have few masks.
        padded: whether full rows may hold padding, because documents or pairs do not fill them exactly.
        shows_answers: whether its input shows answers on purpose: tokens left as they are, shuffled or random ones.
        lost: share of the text that may be neither in the input nor in the labels.
    """

    objective: Objective
    text: Text = "plain"
    noise: float = 0.0
    padded: bool = False
    shows_answers: bool = False
    lost: float = 0.0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return example_vocabulary()

    @cached_property
    def split(self) -> Split:
        plain, pairs = SIZES[self.text]
        return unique_split(self.vocabulary, plain, pairs)

    def read(self, count: int | NDArray[np.int64], seed: int = 1) -> list[tuple[Rows, Batch]]:
        """Returns the rows at these positions of training and their batches; rows of one variant are together."""
        ordinals = np.arange(count) if isinstance(count, int) else count
        return batches(self.objective, self.split, self.vocabulary, ordinals, seed)
