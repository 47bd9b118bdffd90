"""How a model of span corruption fills a blank: the blank is a sentinel in the source, and the decoder writes what
it hid.

    source    The <extra_id_0> sat on the <extra_id_1> . </s>
    target    <extra_id_0> cat <extra_id_1> …

An answer ends where the decoder turns to the next sentinel or to </s>.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Answer, Cloze, Filler
from pretextlm.evaluation.scoring import by_length, score_continuations
from pretextlm.model.beam import beam
from pretextlm.model.incremental import Incremental

CANDIDATES = 4


class SpanFiller(Filler):
    """Scores are log p(<extra_id_0> answer, and then its end), in nats, <extra_id_0> itself given."""

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        width = max(CANDIDATES, top)
        sources = [self.source(cloze.pieces) for cloze in clozes]
        found: list[list[Answer]] = [[] for _ in clozes]
        device = self.model.embed_tokens.weight.device
        banned = torch.from_numpy(self.banned).to(device)
        for part in by_length([width * len(source) for source in sources]):
            results = beam(
                Incremental(self.model, [sources[i] for i in part], self.vocabulary.pad),
                [self.target_start] * len(part),
                [self.closers] * len(part),
                banned,
                torch.from_numpy(self.banned_first([clozes[i] for i in part])).to(device),
                width,
                max_tokens,
            )
            for i, hypotheses in zip(part, results, strict=True):
                found[i] = [Answer(h.tokens, h.total) for h in hypotheses[:top]]
        return found

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        sources = [self.source(cloze.pieces) for cloze in clozes]
        starts = [self.target_start] * len(clozes)
        logs = score_continuations(self.model, self.vocabulary, starts, choices, sources, self.closers)
        return [np.array([values.sum() for values in many]) for many in logs]

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
        source = list(pieces[0])
        for sentinel, piece in zip(sentinels, pieces[1:], strict=False):
            source += [sentinel, *piece]
        return [*source, self.vocabulary.eos]

    @property
    def target_start(self) -> list[int]:
        """What stands before the answer: the start token, where the decoder has a row of its own, and a sentinel."""
        start = [] if self.model.encoder is None else [self.vocabulary.pad]
        return [*start, self.vocabulary.sentinels[0]]

    @property
    def closers(self) -> list[int]:
        """Ids that end an answer."""
        return [self.vocabulary.eos, *self.vocabulary.sentinels[1:]]
