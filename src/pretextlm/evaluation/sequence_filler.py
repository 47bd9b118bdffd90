"""How a model of masked sequence to sequence fills a blank: it lies in a hidden stretch, which the decoder writes.

    encoder    The [MASK] [MASK] [MASK] [MASK] mat .
    decoder    [PAD] cat sat on the                       positions 1 2 3 4

The stretch is as long as those the model was trained on. It begins with the blank, or before it where too little text
follows: what stands before the blank is put into the decoder's mouth, and an answer is weighed with what stands after.
The encoder sees how many tokens are missing, so every number is tried.
"""

from __future__ import annotations

from typing import ClassVar

from pretextlm.evaluation.cloze import Cloze, TokenTexts
from pretextlm.evaluation.continuation import RIGHT_WINDOW, ContinuationFiller
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.objectives.masked_sequence import MaskedSequence


class MaskedSequenceFiller(ContinuationFiller):
    """Scores are log p(answer + text after it in the stretch | the rest of the text, what the stretch begins with)."""

    counted: ClassVar[bool] = True

    def __init__(self, model: Transformer, objective: Objective, texts: TokenTexts) -> None:
        super().__init__(model, objective, texts)
        assert isinstance(objective, MaskedSequence), "the objective says how long a stretch is"
        self._hidden = objective.hidden

    def source(self, cloze: Cloze, length: int) -> list[int] | None:
        mask, before, after = self.vocabulary.mask, self._before(cloze), len(self.after(cloze))
        row = [*cloze.left[: len(cloze.left) - before], *[mask] * (before + length + after), *cloze.right[after:]]
        for piece in cloze.later:
            row += [mask, *piece]
        return row

    def before(self, cloze: Cloze) -> list[int]:
        return [self.vocabulary.start, *cloze.left[self.start(cloze) :]]

    def after(self, cloze: Cloze) -> list[int]:
        return [*cloze.right[: min(RIGHT_WINDOW, self._stretch(cloze))]]

    def start(self, cloze: Cloze) -> int:
        return len(cloze.left) - self._before(cloze)

    def _stretch(self, cloze: Cloze) -> int:
        """Tokens of the text around the blank that are hidden along with it."""
        return self._hidden(len(cloze.left) + len(cloze.right))

    def _before(self, cloze: Cloze) -> int:
        """How many of them stand before the blank."""
        return min(len(cloze.left), self._stretch(cloze) - len(self.after(cloze)))
