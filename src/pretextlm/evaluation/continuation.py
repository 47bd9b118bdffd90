"""What fillers share whose decoder goes on from a text: likely answers by a beam, and their scores."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.evaluation.cloze import Answer, Cloze, Filler
from pretextlm.evaluation.scoring import by_length, weigh_continuations
from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.likely_continuations import Hypothesis, likely_continuations

CANDIDATES = 8
RIGHT_WINDOW = 16
"""Tokens after the blank that an answer is weighed with."""


def continuations(
    filler: Filler,
    clozes: Sequence[Cloze],
    contexts: Sequence[Sequence[int]],
    sources: Sequence[Sequence[int]] | None,
    closers: Sequence[Sequence[int]],
    width: int,
    max_tokens: int,
    reread: bool = False,
    starts: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """For each blank the `width` likeliest answers of each length, as the decoder writes them; best first."""
    found: list[list[Hypothesis]] = [[] for _ in clozes]
    device = filler.model.embed_tokens.weight.device
    banned = torch.from_numpy(filler.banned).to(device)
    lengths = [len(context) + (0 if sources is None else len(sources[i])) for i, context in enumerate(contexts)]
    for part in by_length([width * length for length in lengths]):
        seen = None if sources is None else [sources[i] for i in part]
        begin = None if starts is None else [starts[i] for i in part]
        results = likely_continuations(
            IncrementalDecoder(filler.model, seen, filler.vocabulary.pad, reread=reread, starts=begin),
            [contexts[i] for i in part],
            [closers[i] for i in part],
            banned,
            torch.from_numpy(filler.banned_first([clozes[i] for i in part])).to(device),
            width,
            max_tokens,
        )
        for i, result in zip(part, results, strict=True):
            found[i] = result
    return found


class ContinuationFiller(Filler):
    """A decoder writes the answer after `before`, and then `after`: an answer must lead to what stands behind it.

    Scores are log p(answer and `after` | `source`, `before`), in nats.

    Class attributes: `counted`: the source tells how many tokens are hidden. `reread`: `before` begins with the
    source's last token.
    """

    writes: ClassVar[bool] = True
    counted: ClassVar[bool] = False
    reread: bool = False

    @abstractmethod
    def before(self, cloze: Cloze) -> list[int]:
        """What the decoder has read when the answer begins; at least one id."""

    @abstractmethod
    def after(self, cloze: Cloze) -> list[int]:
        """What it is to write after the answer."""

    def source(self, cloze: Cloze, length: int) -> list[int] | None:
        """What is seen in both directions besides, for an answer of `length` tokens (0: of any); None for nothing."""
        return None

    def start(self, cloze: Cloze) -> int:
        """Position of the first token that the decoder reads."""
        return 0

    def closers(self, cloze: Cloze) -> list[int]:
        """Ids of which one is to follow the answer; any, where nothing is known of it."""
        return self.after(cloze)[:1] or np.flatnonzero(~self.banned).tolist()

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        candidates = [[h.tokens for h in found] for found in self._candidates(clozes, top, max_tokens)]
        scores = self.scores(clozes, candidates)
        answers = [
            [Answer(tokens, float(score)) for tokens, score in zip(found, values, strict=True)]
            for found, values in zip(candidates, scores, strict=True)
        ]
        return [sorted(found, key=lambda answer: -answer.score)[:top] for found in answers]

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        asked: dict[tuple[int, int], list[int]] = {}  # (blank, length that the source tells) → its choices
        for blank, many in enumerate(choices):
            for nth, choice in enumerate(many):
                asked.setdefault((blank, len(choice) if self.counted else 0), []).append(nth)
        texts = [[[*choices[b][nth], *self.after(clozes[b])] for nth in some] for (b, _), some in asked.items()]
        contexts = [self.before(clozes[blank]) for blank, _ in asked]
        sources = self._sources([(clozes[blank], length) for blank, length in asked])
        starts = [self.start(clozes[blank]) for blank, _ in asked]
        weighed = weigh_continuations(
            self.model, self.vocabulary, contexts, texts, sources, reread=self.reread, starts=starts
        )
        found = [np.zeros(len(many)) for many in choices]
        for ((blank, _), some), of_blank in zip(asked.items(), weighed, strict=True):
            found[blank][some] = [float(scored.log_probabilities.sum()) for scored in of_blank]
        return found

    def _candidates(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Hypothesis]]:
        """Likely answers by what stands before the blank and the first token after it, `top` of them or more."""
        if not self.counted:
            width = max(CANDIDATES, top)
            return [found[:width] for found in self._written(clozes, 0, width, max_tokens)]
        found: list[list[Hypothesis]] = [[] for _ in clozes]
        width = max(math.ceil(CANDIDATES / max_tokens), top)  # of each number of tokens
        for length in range(1, max([max_tokens, *(cloze.length or 0 for cloze in clozes)]) + 1):
            some = [i for i, c in enumerate(clozes) if (c.length == length if c.length else length <= max_tokens)]
            for i, written in zip(some, self._written([clozes[i] for i in some], length, width, length), strict=True):
                found[i] += [h for h in written if len(h.tokens) == length]
        return found

    def _written(self, clozes: Sequence[Cloze], length: int, width: int, max_tokens: int) -> list[list[Hypothesis]]:
        contexts = [self.before(cloze) for cloze in clozes]
        sources = self._sources([(cloze, length) for cloze in clozes])
        closers = [self.closers(cloze) for cloze in clozes]
        starts = [self.start(cloze) for cloze in clozes]
        return continuations(self, clozes, contexts, sources, closers, width, max_tokens, self.reread, starts)

    def _sources(self, asked: Sequence[tuple[Cloze, int]]) -> list[list[int]] | None:
        found = [self.source(cloze, length) for cloze, length in asked]
        return [source for source in found if source is not None] or None
