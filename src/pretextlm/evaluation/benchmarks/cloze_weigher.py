"""Any model that fills blanks: the continuation as what fills one at the end of a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pretextlm.evaluation.benchmarks.weigh import Ids, Tick, Weigher, Weight, batches
from pretextlm.evaluation.cloze import Cloze, Filler, TokenTexts, filler

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective


class ClozeWeigher(Weigher):
    """The continuation fills a blank at the text's end.

    Attributes:
        exact: it is to be known what the model itself would have written; that takes a search.
    """

    method: ClassVar[str] = "cloze"

    def __init__(
        self, model: Transformer, objective: Objective, texts: TokenTexts, rows: int | None = None, batch_size: int = 32
    ) -> None:
        super().__init__(model, objective, texts, rows, batch_size)
        self.way: Filler = filler(model, objective, texts)
        self.exact = False

    def weigh_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], tick: Tick | None = None
    ) -> list[Weight]:
        found: dict[int, Weight] = {}
        room = 4  # what may stand around a text in a row
        for part in batches([len(a) + len(b) for a, b in pairs], [1] * len(pairs), self.batch_size):
            clozes = []
            for number in part:
                before, ids = pairs[number]
                needed = len(ids) + room
                spaced = bool(self.texts.begins_word[ids[0]]) if len(before) else False
                before = self.crop(before, len(before) + needed, needed)
                clozes.append(Cloze(before, (), length=len(ids), new_word=spaced))
            scores = self.way.scores(clozes, [[pairs[number][1]] for number in part])
            longest = max(len(pairs[number][1]) for number in part)
            answers = self.way.answers(clozes, 1, longest) if self.exact else None
            for nth, number in enumerate(part):
                ids = pairs[number][1]
                same = answers is not None and answers[nth][0].tokens == ids
                found[number] = Weight(float(scores[nth].sum()), len(ids), same)
            if tick is not None:
                tick(len(part))
        return [found[number] for number in range(len(pairs))]
