"""The base of the pre-training objectives, which read a stream of text and hide, replace or reorder parts of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.row_reader import RowReader
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, TrainingObjective
from pretextlm.objectives.shared.measures import Measure
from pretextlm.scoring.blank import DecoderPrompt
from pretextlm.scoring.blank_layout import BlankLayout

if TYPE_CHECKING:
    from pretextlm.data.store import Split
    from pretextlm.model.transformer import Transformer
    from pretextlm.scoring.scorer import Scorer
    from pretextlm.scoring.token_texts import TokenTexts


Role = Literal["hides_in_place", "edits_row", "rewrites"]
"""Duties inside another objective: hide tokens of an encoder's row and predict them there; change an encoder's row in
place in any way; turn text into a source and a target."""


@dataclass(frozen=True)
class Published:
    """Published models that, once imported, count as trained by an objective.

    Attributes:
        family: Hugging Face's model_type; "" for any.
        architecture: of models whose family no objective names; "" for any.
        head: name of a head that comes with the model, which is stronger than family and architecture; "" for none.
    """

    family: str = ""
    architecture: Architecture | Literal[""] = ""
    head: str = ""


class Objective(TrainingObjective):
    """Base of all pre-training objectives: each is one file, a subclass with its options as fields.

    Class attributes, beside those of :class:`TrainingObjective`:
        measures: how well a model does what it was trained to do, beside the loss and its terms.
        published_as: the published models that belong to it. A subclass does not inherit them.
        roles: duties that it can have inside another objective. A subclass that cannot sets it to an empty set.
        extra_tokens: tokens that a document may gain, for which a row that is shown leaves room.
    """

    measures: ClassVar[tuple[Measure, ...]] = ()
    published_as: ClassVar[tuple[Published, ...]] = ()
    roles: ClassVar[frozenset[Role]] = frozenset()
    extra_tokens: ClassVar[int] = 0

    @classmethod
    def described_as(cls) -> str:
        return f"objective {getattr(cls, 'name', cls.__name__)!r}"

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """Returns how the input of a model so trained presents a blank; None if it cannot fill any."""
        return None

    def scorer(self, model: Transformer, texts: TokenTexts) -> Scorer | None:
        from pretextlm.scoring.engines import scorer_of

        layout = self.blank_layout(texts.vocabulary, model.config.architecture)
        return None if layout is None else scorer_of(model, texts, layout)

    def decoder_prompt(
        self, vocabulary: Vocabulary, architecture: Architecture, tokens: Sequence[int]
    ) -> DecoderPrompt | None:
        if self.answers_prompts(vocabulary, architecture) and vocabulary.template is not None:
            return DecoderPrompt([vocabulary.start, *vocabulary.forced], vocabulary.template.around(tokens))
        layout = self.blank_layout(vocabulary, architecture) if architecture != "encoder" else None
        return None if layout is None else layout.prompt(tokens)

    @property
    def reads_stream(self) -> bool:
        """Whether any run of text is a row; otherwise only `reader` defines a row."""
        return type(self).reader is Objective.reader

    @property
    def reads_pairs(self) -> bool:
        """Whether it reads documents of two parts, a source and a target; otherwise it reads the plain ones alone."""
        return False

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels that are not tokens: of a row, or of whether a token is the original."""
        return {}

    def variant_names(self) -> list[str]:
        """Returns the names of the variants, which depend on neither vocabulary nor length."""
        return ["main"]

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns the special tokens around the text it reads."""
        raise NotImplementedError

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns the shapes of rows for input rows of `length` tokens.

        Raises:
            UserError: the vocabulary or the length does not suit.
        """
        raise NotImplementedError

    def documents(self, split: Split) -> Split:
        """Returns the plain documents, or all of them if it reads pairs.

        A pair is no running text: its target follows its source without anything between, as the store holds them.

        Raises:
            UserError: it reads plain documents, and all are pairs.
        """
        if self.reads_pairs:
            return split
        plain = split.plain()
        if split.num_tokens and not plain.num_tokens:
            raise UserError(
                f"All documents are pairs of a source and a target; {self.name} reads plain text.",
                "Prepare both as one text, a blank line between: pretextlm data prepare 'FILE?field=SOURCE,TARGET'",
            )
        return plain

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns a reader of the framed stream of `documents` in the shapes of `variants`.

        Raises:
            UserError: the split has no such documents.
        """
        from pretextlm.data.mixture import Mixture

        return Mixture(self.documents(split), self.frame(vocabulary), self.variants(vocabulary, length))

    def at_evaluation(self) -> Objective:
        return self

    def loss_mask(self, batch: Batch) -> NDArray[np.bool_]:
        """Returns (B, T) which positions of the predicted row have a loss at their token."""
        found: NDArray[np.bool_] = batch.targets != IGNORE
        return found if batch.shuffled_labels is None else found | (batch.shuffled_labels != IGNORE)
