"""How a model of span corruption fills a blank: the blank is a sentinel in the source, and the decoder writes what
it hid.

    source    The <extra_id_0> sat on the <extra_id_1> . </s>
    target    <extra_id_0> cat <extra_id_1> …

An answer ends where the decoder turns to the next sentinel or to </s>. A model of several denoisers is told by its mode
token that few short spans are hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pretextlm.data.special_tokens import NLU, REGULAR
from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Answer, Cloze, Filler, Opening
from pretextlm.evaluation.continuation import continuations
from pretextlm.evaluation.scoring import weigh_continuations
from pretextlm.objectives.base import Objective
from pretextlm.objectives.denoisers import Denoiser, Denoisers

CANDIDATES = 4


class SpanFiller(Filler):
    """Scores are log p(<extra_id_0> answer, and then its end), in nats, <extra_id_0> itself given."""

    writes: ClassVar[bool] = True

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        sources = [self.source(cloze.pieces) for cloze in clozes]
        starts, closers = [self.target_start] * len(clozes), [self.closers] * len(clozes)
        found = continuations(self, clozes, starts, sources, closers, max(CANDIDATES, top), max_tokens)
        return [[Answer(h.tokens, h.total) for h in hypotheses[:top]] for hypotheses in found]

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        sources = [self.source(cloze.pieces) for cloze in clozes]
        starts = [self.target_start] * len(clozes)
        found = weigh_continuations(self.model, self.vocabulary, starts, choices, sources, self.closers)
        return [np.array([scored.log_probabilities.sum() for scored in many]) for many in found]

    def source(self, pieces: Sequence[Sequence[int]]) -> list[int]:
        """The text with a sentinel for every blank between its pieces, as it stands in a row.

        Raises UserError when there are more blanks than sentinels.
        """
        sentinels = self.vocabulary.sentinels
        if len(pieces) - 1 > len(sentinels):
            raise UserError(
                f"The text has {len(pieces) - 1} blanks; the tokenizer has {len(sentinels)} sentinels.",
                "Fill a shorter part of the text at a time.",
            )
        source = [*self._mode(_regular), *pieces[0]]
        for sentinel, piece in zip(sentinels, pieces[1:], strict=False):
            source += [sentinel, *piece]
        return [*source, self.vocabulary.eos]

    @property
    def target_start(self) -> list[int]:
        """What stands before the answer: the start token, where the decoder has a row of its own, and a sentinel."""
        start = [] if self.model.encoder is None else [self.vocabulary.start]
        return [*start, self.vocabulary.sentinels[0]]

    @property
    def closers(self) -> list[int]:
        """Ids that end an answer."""
        return [self.vocabulary.eos, *self.vocabulary.sentinels[1:]]

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        """A denoiser that hides the end of a text goes on from it; any other has a sentinel there, as T5 does."""
        if _ending(self.objective) is None:
            return Opening(self.target_start, self.source([prompt, []]), stop=tuple(self.closers))
        v = self.vocabulary
        source = [*self._mode(_ending), *prompt, v.eos]
        joint = self.model.encoder is None
        return Opening([v.eos] if joint else [v.start], source, reread=joint)

    def _mode(self, chosen: Callable[[Objective], Denoiser | None]) -> list[int]:
        """The mode token of a denoiser, where there is one."""
        denoiser = chosen(self.objective)
        if denoiser is None or not isinstance(self.objective, Denoisers) or not self.objective.modes:
            return []
        return [self.vocabulary.id_of(denoiser.mode)]


def _regular(objective: Objective) -> Denoiser | None:
    """Of several denoisers the one in regular mode, else the one that hides least under sentinels."""
    spans = [row for row in _table(objective) if row.kind == "span"]
    regular = [row for row in spans if row.mode in (NLU, REGULAR)]
    return min(regular or spans, key=lambda row: row.rate, default=None)


def _ending(objective: Objective) -> Denoiser | None:
    """Of several denoisers the one that hides the end of a text."""
    return next((row for row in _table(objective) if row.kind == "prefix"), None)


def _table(objective: Objective) -> tuple[Denoiser, ...]:
    return objective.table if isinstance(objective, Denoisers) else ()
