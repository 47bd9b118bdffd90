"""Hide tokens of code and of its description, and predict them from both (Feng et al. 2020).

    pair           [Return the larger . | def f(a,b): return max(a,b)]
    input          [CLS] Return the [MASK] . [SEP] def f(a,b): return [MASK] (a,b) [SEP]   [CLS] …
    labels           -     -     -  larger -   -    -    -       -     max     -     -      -       - : no loss
    token types      0     0     0    0    0   0    1    1       1      1      1     1      0
    segments         0     0     0    0    0   0    0    0       0      0      0     0      1

A hidden name in the code is often visible in the description and vice versa, so the model learns which words belong to
which code. Pairs are packed, several to a row, and do not see each other.

Paper: CodeBERT: A Pre-Trained Model for Programming and Natural Languages, https://arxiv.org/abs/2002.08155. It feeds
[CLS] words [SEP] code [EOS], hides 15 % of the tokens of both, and distinguishes the two only by their order; here they
also have token types. Its other half, replaced token detection with n-gram models as generators, is ELECTRA's: join
this objective with `replaced_token`, whose generator is a small Transformer.

Requires a store with pairs whose source is the text and whose target is the code
(`data prepare 'FILE?source=docstring&target=code'`), [CLS], [SEP] and [MASK]. Suits an encoder. It is masked language
modelling with other rows: any pairs will do, such as a sentence and its translation.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective, Role
from pretextlm.objectives.masked import Masked, MaskedLayout
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared.measures import FILL_ACCURACY, PSEUDO_PERPLEXITY, Measure
from pretextlm.scoring.blank_layout import BlankLayout

if TYPE_CHECKING:
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.store import Split

LEAST_LENGTH = 5
"""[CLS], two [SEP], and a token of each text."""


class BimodalCode(Objective):
    """Masked language modelling over pairs of a text and a piece of code.

    A pair that is longer than a row loses tokens at the end of its longer part, until it fits.

    Args:
        masked: how tokens are selected and replaced, in both parts.
    """

    name: ClassVar[str] = "bimodal_code"
    title: ClassVar[str] = "Masked text and code"
    paper: ClassVar[str] = "Feng et al. 2020, https://arxiv.org/abs/2002.08155"
    summary: ClassVar[str] = "Tokens are hidden in a text and in the code that belongs to it, and restored from both."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (FILL_ACCURACY, PSEUDO_PERPLEXITY)
    roles: ClassVar[frozenset[Role]] = frozenset({"hides_in_place"})
    token_types: ClassVar[int] = 2

    masked: Masked = Field(default_factory=Masked, description="how tokens are selected and replaced")

    @property
    def reads_pairs(self) -> bool:
        return True

    @property
    def predict(self) -> str:
        """Position at which a hidden token is predicted, as in the masked objective."""
        return self.masked.predict

    @property
    def noise_period(self) -> int:
        """That of the masked objective; rows repeat with their masks."""
        return self.masked.noise_period

    @property
    def scheduled_noise(self) -> bool:
        """That of the masked objective."""
        return self.masked.scheduled_noise

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns the special tokens of masked language modelling; pairs have [CLS] before, [SEP] after each text."""
        return self.masked.frame(vocabulary)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of `length`, special tokens and padding included.

        Raises:
            UserError: the length has no room for a pair.
        """
        if length < LEAST_LENGTH:
            raise UserError(
                f"Rows of {length} tokens have no room for a pair beside [CLS] and two [SEP].",
                f"Give a length of at least {LEAST_LENGTH}.",
            )
        return self.masked.variants(vocabulary, length)

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns a reader of the split's pairs, packed.

        Raises:
            UserError: the split has no pairs.
        """
        from pretextlm.data.packed_pairs import PackedPairs, PairFrame, RowCapacity

        self.variants(vocabulary, length)
        frame = PairFrame(lead=vocabulary.cls, middle=vocabulary.sep, end=vocabulary.sep)
        return PackedPairs(split, frame, RowCapacity(total=length), vocabulary.pad, copies=self.noise_period)

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The blank is filled with [MASK]; the text is the first part of a pair."""
        next_token = self.masked.predict == "next"
        return MaskedLayout(vocabulary, self.frame(vocabulary), next_token, always_ends=True)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, T) inputs with masks, labels at the selected tokens, and the part of each token as its type."""
        batch = self.masked.collate(rows, vocabulary, rng)
        if rows.token_type_ids is None or batch.token_type_ids is not None:
            return batch
        return dataclasses.replace(batch, token_type_ids=rows.matrix(rows.token_type_ids).copy())
