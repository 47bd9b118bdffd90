"""Predict each token from those before it (Radford et al. 2018).

    stream    <s> 7 8 9 </s> <s> 5 …     a row reads one token more than it holds
    input     <s> 7 8 9 </s> <s>
    labels     7  8 9 </s> -   5         - : no loss, the next document begins here
    position   0  1 2 3    4   0

Paper: Improving Language Understanding by Generative Pre-Training,
https://openai.com/index/language-unsupervised

Requires <s> and </s>. Suits a decoder. Every position has a target, where the masked model has one in seven: of all
objectives it draws most signal from a token read, and none from what follows. Prefix language modelling is the same
loss with part of the row visible in both directions.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import Architecture, Frame, Objective, Variant


class Causal(Objective):
    """Causal language modelling: labels[t] is the row's token t + 1.

    Args:
        isolate: packed documents neither see nor predict each other, and positions restart in each; without it a
            row is one run of text, as in GPT-2.
    """

    name: ClassVar[str] = "causal"
    title: ClassVar[str] = "Causal language modelling"
    paper: ClassVar[str] = "Radford et al. 2018, https://openai.com/index/language-unsupervised"
    learns: ClassVar[str] = "to continue a text: each token from those before it."
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder",)

    isolate: bool = Field(default=True, description="documents packed in a row do not see each other")

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """<s> before and </s> after every document."""
        return Frame(begin=vocabulary.bos, end=vocabulary.eos)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Rows of length + 1, of which the next row reads the last again: no position is without its next token.

        Raises UserError for a length below 1.
        """
        if length < 1:
            raise UserError(f"Causal rows of {length} tokens hold nothing.", "Give a length of at least 1.")
        return [Variant("main", raw=length + 1, length=length, overlap=1)]

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: Keyed) -> Batch:
        """(B, T + 1) tokens → inputs and labels (B, T). Nothing is drawn."""
        tokens, segments = rows.matrix(rows.tokens), rows.matrix(rows.segment_ids)
        here, following = segments[:, :-1], segments[:, 1:]
        padding = following < 0
        labels = tokens[:, 1:].copy()
        np.copyto(labels, IGNORE, where=padding | (following != here) if self.isolate else padding)
        batch = {"input_ids": tokens[:, :-1].copy(), "labels": labels, "example_ids": rows.example_ids}
        if self.isolate:
            positions = rows.matrix(rows.position_ids)[:, :-1].copy()
            return Batch(**batch, segment_ids=here.copy(), position_ids=positions, attention="causal")
        one = np.where(here < 0, np.int32(-1), np.int32(0)) if padding.any() else None
        return Batch(**batch, segment_ids=one, attention="causal")
