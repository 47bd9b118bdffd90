"""How a masked model fills a blank: it puts some [MASK] there and reads them from both sides.

    The [MASK] sat on the mat.             one token
    The [MASK] [MASK] sat on the mat.      two: the surer one first, then the other, seeing the first

A model that predicts the next token is asked at the place before each [MASK].
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pretextlm.evaluation.cloze import Cloze, Opening
from pretextlm.evaluation.in_place import I64, Asked, InPlaceFiller
from pretextlm.evaluation.scoring import hidden_at
from pretextlm.objectives.mixed_visibility import MixedVisibility


class MaskedFiller(InPlaceFiller):
    """Open places are [MASK]; the text around them stands as in a row of the objective, all of it of type 0."""

    def states(self, clozes: Sequence[Cloze], rows: Sequence[Asked], row_of: I64, place_of: I64) -> Tensor:
        texts = [self.row(clozes[asked.blank], asked.tokens) for asked in rows]
        starts = [self.start(clozes[rows[row].blank]) for row in row_of]
        shift = 1 if getattr(self.objective, "predict", "here") == "next" else 0
        return hidden_at(self.model, self.vocabulary, texts, row_of, place_of + starts - shift)

    def row(self, cloze: Cloze, filled: Sequence[int]) -> list[int]:
        """The text as it stands in a row, with -1 in `filled` and further blanks as [MASK]."""
        mask = self.vocabulary.mask
        row = [*self._lead(cloze), *cloze.left, *(mask if token < 0 else token for token in filled), *cloze.right]
        for piece in cloze.later:
            row += [mask, *piece]
        return [*row, *self._end(cloze)]

    def start(self, cloze: Cloze) -> int:
        """Place of the blank's first token in its row."""
        return len(self._lead(cloze)) + len(cloze.left)

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        """Rows seen from left to right have taught some masked models to go on as well."""
        objective = self.objective
        if self.model.decoder is None or not isinstance(objective, MixedVisibility) or not objective.continues:
            return None
        return Opening([self.vocabulary.bos, *prompt])

    def _lead(self, cloze: Cloze) -> list[int]:
        frame = self.objective.frame(self.vocabulary)
        begin = frame.begin if cloze.begins or not cloze.left else None
        return [token for token in (frame.lead, begin) if token is not None]

    def _end(self, cloze: Cloze) -> list[int]:
        """The row's last token: at a document's end, or in rows of two parts after each part."""
        end = self.objective.frame(self.vocabulary).end
        return [end] if end is not None and (cloze.ends or self.objective.num_token_types()) else []
