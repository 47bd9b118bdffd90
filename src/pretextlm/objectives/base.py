"""The base of the pre-training objectives, which read a stream of text and hide, replace or reorder parts of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.row_reader import RowReader
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.protocol import Architecture, TrainingObjective

if TYPE_CHECKING:
    from pretextlm.data.store import Split


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
        fills: the way of filling blanks (a name of evaluation.cloze.FILLERS) of a model so trained, None if it has
            none.
        published_as: the published models that belong to it. A subclass does not inherit them.
        roles: what it can do inside another objective. A subclass that cannot must say so.
        extra_tokens: tokens that a document may gain, for which a row that is shown leaves room.
    """

    fills: ClassVar[str | None] = None
    published_as: ClassVar[tuple[Published, ...]] = ()
    roles: ClassVar[frozenset[Role]] = frozenset()
    extra_tokens: ClassVar[int] = 0

    @classmethod
    def described_as(cls) -> str:
        return f"objective {getattr(cls, 'name', cls.__name__)!r}"

    def way_of_filling(self) -> str | None:
        return self.fills

    @property
    def reads_stream(self) -> bool:
        """Whether any run of text is a row; otherwise only `reader` defines a row."""
        return type(self).reader is Objective.reader

    @property
    def reads_pairs(self) -> bool:
        """Whether documents must have two parts, a source and a target."""
        return False

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

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns a reader of the framed stream in the shapes of `variants`."""
        from pretextlm.data.mixture import Mixture

        return Mixture(split, self.frame(vocabulary), self.variants(vocabulary, length))

    def at_evaluation(self) -> Objective:
        return self

    def loss_mask(self, batch: Batch) -> NDArray[np.bool_]:
        """Returns (B, T) which positions of the predicted row have a loss at their token."""
        found: NDArray[np.bool_] = batch.targets != IGNORE
        return found if batch.shuffled_labels is None else found | (batch.shuffled_labels != IGNORE)
