"""How a model that reads from left to right fills a blank: it continues the text before it, and then looks which of
its continuations makes the text after the blank most likely.

    The | cat mouse dog … | sat on the mat.        argmax  log p(answer and text after it | text before it)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.evaluation.cloze import Answer, Cloze, Filler
from pretextlm.evaluation.scoring import by_length, score_continuations
from pretextlm.model.beam import Hypothesis, beam
from pretextlm.model.incremental import Incremental

CANDIDATES = 8
RIGHT_WINDOW = 16
"""Tokens after the blank that an answer is weighed with."""


class CausalFiller(Filler):
    """Scores are log p(answer + text after the blank | text before it), in nats, for at most RIGHT_WINDOW tokens."""

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        width = max(CANDIDATES, top)
        candidates = [found[:width] for found in self._continuations(clozes, width, max_tokens)]
        scores = self.scores(clozes, [[c.tokens for c in found] for found in candidates])
        answers = [
            [Answer(c.tokens, float(score)) for c, score in zip(found, values, strict=True)]
            for found, values in zip(candidates, scores, strict=True)
        ]
        return [sorted(found, key=lambda answer: -answer.score)[:top] for found in answers]

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        texts = [
            [[*choice, *self._after(cloze)] for choice in many] for cloze, many in zip(clozes, choices, strict=True)
        ]
        logs = score_continuations(self.model, self.vocabulary, [self._before(c) for c in clozes], texts)
        return [np.array([values.sum() for values in many]) for many in logs]

    def _continuations(self, clozes: Sequence[Cloze], width: int, max_tokens: int) -> list[list[Hypothesis]]:
        """Likely answers by the text before the blank and the first token after it."""
        contexts = [self._before(cloze) for cloze in clozes]
        found: list[list[Hypothesis]] = [[] for _ in clozes]
        device = self.model.embed_tokens.weight.device
        banned = torch.from_numpy(self.banned).to(device)
        for part in by_length([width * len(context) for context in contexts]):
            some = [clozes[i] for i in part]
            results = beam(
                Incremental(self.model, pad=self.vocabulary.pad),
                [contexts[i] for i in part],
                [self._closers(cloze) for cloze in some],
                banned,
                torch.from_numpy(self.banned_first(some)).to(device),
                width,
                max_tokens,
            )
            for i, result in zip(part, results, strict=True):
                found[i] = result
        return found

    def _before(self, cloze: Cloze) -> list[int]:
        frame = self.objective.frame(self.vocabulary)
        begin = [frame.begin] if frame.begin is not None and (cloze.begins or not cloze.left) else []
        return [*begin, *cloze.left]

    def _after(self, cloze: Cloze) -> list[int]:
        frame = self.objective.frame(self.vocabulary)
        end = [frame.end] if frame.end is not None and cloze.ends and not cloze.later else []
        return [*cloze.right, *end][:RIGHT_WINDOW]

    def _closers(self, cloze: Cloze) -> list[int]:
        """The token after the blank; any, where nothing is known of it."""
        return self._after(cloze)[:1] or np.flatnonzero(~self.banned).tolist()
