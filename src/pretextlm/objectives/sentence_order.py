"""Predict whether two neighbouring passages are in their original order (Lan et al. 2020): ALBERT.

    text      … [7 8 9] [4 5] …

    row       [CLS] 7 8 9 [SEP] 4 5 [SEP]        label 0: in order
    row       [CLS] 4 5 [SEP] 7 8 9 [SEP]        label 1: swapped
    types       0   …

Both passages are runs of complete sentences of one document, next to each other, and one in two pairs is swapped. All
text is read once in an epoch, except truncated tokens (see next_sentence) and documents of one sentence, which have no
pair. The released code uses a passage of another document where one sentence of a document remains for a row, and
labels it as swapped; here such a sentence belongs to the row before it.

Paper: ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, https://arxiv.org/abs/1909.11942.

Requires [CLS], [SEP], the requirements of the inner objective, and a document of two sentences. Suits an encoder.
Next-sentence prediction asks an easier question, which the topic alone often answers; with three classes it asks both.
"""

from __future__ import annotations

from typing import ClassVar

from pretextlm.data.sentence_pair_index import Kind
from pretextlm.objectives.base import Published
from pretextlm.objectives.shared.sentence_pairs import SentencePairs

KINDS = (Kind("next", 1 / 2, 0, "in order: B follows A"), Kind("previous", 1 / 2, 1, "swapped: B precedes A"))


class SentenceOrder(SentencePairs):
    """Sentence-order prediction.

    Args:
        inner, short, reverse_labels: see SentencePairs.

    Raises:
        UserError: options that the inner objective refuses (through `parse`).
    """

    name: ClassVar[str] = "sentence_order"
    title: ClassVar[str] = "Sentence-order prediction"
    paper: ClassVar[str] = "Lan et al. 2020, https://arxiv.org/abs/1909.11942"
    summary: ClassVar[str] = (
        "Tells which of two neighbouring passages comes first, and restores tokens that are hidden in both."
    )
    published_as: ClassVar[tuple[Published, ...]] = (Published("albert", head="pair"),)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """In order or swapped."""
        return KINDS
