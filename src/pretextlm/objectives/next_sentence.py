"""Predict whether sentence B follows sentence A (Devlin et al. 2019), with masked language modelling: BERT.

    text A    … [7 8 9] [4 5] …          text B    … [3 1] [2 2 6] …

    row       [CLS] 7 8 9 [SEP] 4 5 [SEP]        label 0: next
    row       [CLS] 7 8 9 [SEP] 2 2 6 [SEP]      label 1: a sentence of another document
    types       0   0 0 0   0   1 1 1   1

A and B are runs of complete sentences; a row holds as many as fit. The text of a document is used in order: the text
that a random B replaces begins the next row. Where one sentence of a document remains for a row, only a random B can
follow it, so that label 1 is a little more frequent. A pair that is too long loses tokens one by one, each from the
longer part, at its front or back with equal probability; so a few tokens may be missing between A and its next B.

With classes=3 B may also be the text before A (StructBERT's sentence structure), a third of the pairs each. The labels
are then 0 next, 1 previous, 2 random, as in the code of PoNet (https://arxiv.org/abs/2110.02442), which took the
objective over; StructBERT's own code for it has not been published.

Paper: BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
https://arxiv.org/abs/1810.04805; the rows are those of its released code. StructBERT: Incorporating Language Structures
into Pre-training for Deep Language Understanding, https://arxiv.org/abs/1908.04577. RoBERTa found that the masked
model is as good without it, https://arxiv.org/abs/1907.11692.

Requires [CLS], [SEP], the requirements of the inner objective, and at least two documents. Suits an encoder. Sentence
order is its harder relative, which the topic does not reveal.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from pretextlm.data.sentence_pair_index import Kind
from pretextlm.objectives.base import Published
from pretextlm.objectives.shared.sentence_pairs import SentencePairs

NEXT, PREVIOUS, RANDOM = "IsNext: B follows A", "IsPrevious: B precedes A", "NotNext: B is from another document"
TWO = (Kind("next", 1 / 2, 0, NEXT), Kind("random", 1 / 2, 1, RANDOM))
THREE = (Kind("next", 1 / 3, 0, NEXT), Kind("previous", 1 / 3, 1, PREVIOUS), Kind("random", 1 / 3, 2, RANDOM))


class NextSentence(SentencePairs):
    """Next-sentence prediction.

    Args:
        classes: 2 for next or random (BERT), 3 for next, previous or random (StructBERT).
        inner, short, reverse_labels: see SentencePairs.

    Raises:
        UserError: reverse_labels with three classes, or options that the inner objective refuses (through `parse`).
    """

    name: ClassVar[str] = "next_sentence"
    title: ClassVar[str] = "Next-sentence prediction"
    paper: ClassVar[str] = "Devlin et al. 2019, https://arxiv.org/abs/1810.04805"
    summary: ClassVar[str] = (
        "Tells whether one passage goes on where another ends, and restores tokens that are hidden in both."
    )
    published_as: ClassVar[tuple[Published, ...]] = (Published(head="pair"),)

    classes: Literal[2, 3] = Field(default=2, description="next or random; or next, previous or random")

    @model_validator(mode="after")
    def _two_can_be_reversed(self) -> Self:
        if self.reverse_labels and self.classes == 3:
            raise ValueError("reverse_labels is for two classes; three have the labels 0 next, 1 previous, 2 random")
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """BERT's two relations, or StructBERT's three."""
        return TWO if self.classes == 2 else THREE
