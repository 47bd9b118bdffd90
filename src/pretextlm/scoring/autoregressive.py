"""The autoregressive engine: a decoder writes a candidate, and then the text that follows the blank.

    log p(candidate, following text | source, context) = Σ log p(token | source, everything before it)

Candidates are proposed by a beam search, which sees the first following token alone, and then scored in full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.likely_continuations import Hypothesis, likely_continuations
from pretextlm.model.transformer import Transformer
from pretextlm.scoring.blank import Blank, Candidate
from pretextlm.scoring.blank_layout import ContinuationLayout
from pretextlm.scoring.log_probabilities import batches_by_length, score_continuations
from pretextlm.scoring.scorer import Scorer, TokenIds
from pretextlm.scoring.token_texts import TokenTexts


class AutoregressiveScorer(Scorer):
    """Scores by log p(candidate, following text | source, context); with terminators, p(candidate, any of them | …)."""

    layout: ContinuationLayout

    def __init__(self, model: Transformer, texts: TokenTexts, layout: ContinuationLayout) -> None:
        super().__init__(model, texts, layout)

    def log_likelihoods(
        self, blanks: Sequence[Blank], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[NDArray[np.float64]]:
        # Candidates of one blank share its context, which is read once; but their sources may show their lengths.
        groups: dict[tuple[int, int], list[int]] = {}  # (blank, length shown by the source) → numbers of candidates
        for blank, many in enumerate(candidates):
            for number, candidate in enumerate(many):
                shown = len(candidate) if self.layout.source_shows_length else 0
                groups.setdefault((blank, shown), []).append(number)
        scores = score_continuations(
            self.model,
            self.vocabulary,
            [self.layout.context(blanks[blank]) for blank, _ in groups],
            [
                [[*candidates[blank][number], *self.layout.following(blanks[blank])] for number in numbers]
                for (blank, _), numbers in groups.items()
            ],
            self._sources([(blanks[blank], length) for blank, length in groups]),
            self.layout.terminators(),
            self.layout.reread,
            [self.layout.first_position(blanks[blank]) for blank, _ in groups],
        )
        found = [np.zeros(len(many)) for many in candidates]
        for ((blank, _), numbers), of_group in zip(groups.items(), scores, strict=True):
            found[blank][numbers] = [float(scored.log_probabilities.sum()) for scored in of_group]
        return found

    def best_candidates(self, blanks: Sequence[Blank], top: int, max_tokens: int) -> list[list[Candidate]]:
        proposed = self._propose(blanks, top, max_tokens)
        if self.layout.terminators():  # nothing follows: the search has seen all there is
            return [[Candidate(h.tokens, h.total) for h in hypotheses[:top]] for hypotheses in proposed]
        tokens = [[hypothesis.tokens for hypothesis in hypotheses] for hypotheses in proposed]
        scores = self.log_likelihoods(blanks, tokens)
        scored = [
            [Candidate(ids, float(score)) for ids, score in zip(many, values, strict=True)]
            for many, values in zip(tokens, scores, strict=True)
        ]
        return [sorted(many, key=lambda candidate: -candidate.score)[:top] for many in scored]

    def _propose(self, blanks: Sequence[Blank], top: int, max_tokens: int) -> list[list[Hypothesis]]:
        """Returns for each blank likely candidates, `top` or more."""
        width = max(self.layout.beam_width, top)
        if not self.layout.source_shows_length:
            found = self._search(blanks, 0, width, max_tokens)
            return found if self.layout.terminators() else [some[:width] for some in found]
        # Each number of tokens has a source of its own, and so a search of its own: as many candidates in all.
        proposed: list[list[Hypothesis]] = [[] for _ in blanks]
        width = max(math.ceil(self.layout.beam_width / max_tokens), top)
        for length in range(1, max([max_tokens, *(blank.num_tokens or 0 for blank in blanks)]) + 1):
            numbers = [
                number
                for number, blank in enumerate(blanks)
                if (blank.num_tokens == length if blank.num_tokens else length <= max_tokens)
            ]
            found = self._search([blanks[number] for number in numbers], length, width, length)
            for number, hypotheses in zip(numbers, found, strict=True):
                proposed[number] += [h for h in hypotheses if len(h.tokens) == length]
        return proposed

    def _search(self, blanks: Sequence[Blank], shown: int, width: int, max_tokens: int) -> list[list[Hypothesis]]:
        """Returns for each blank the `width` likeliest candidates of each length up to `max_tokens`, best first.

        Args:
            shown: tokens that the source shows as hidden; 0 where it does not show their number.
        """
        found: list[list[Hypothesis]] = [[] for _ in blanks]
        contexts = [self.layout.context(blank) for blank in blanks]
        sources = self._sources([(blank, shown) for blank in blanks])
        device = self.model.embed_tokens.weight.device
        excluded = torch.from_numpy(self.excluded).to(device)
        lengths = [len(context) + (0 if sources is None else len(sources[i])) for i, context in enumerate(contexts)]
        for numbers in batches_by_length([width * length for length in lengths]):
            some = [blanks[i] for i in numbers]
            hypotheses = likely_continuations(
                IncrementalDecoder(
                    self.model,
                    None if sources is None else [sources[i] for i in numbers],
                    self.vocabulary.pad,
                    reread=self.layout.reread,
                    starts=[self.layout.first_position(blank) for blank in some],
                ),
                [contexts[i] for i in numbers],
                [self._closers(blank) for blank in some],
                excluded,
                torch.from_numpy(self.excluded_first(some)).to(device),
                width,
                max_tokens,
            )
            for i, many in zip(numbers, hypotheses, strict=True):
                found[i] = many
        return found

    def _closers(self, blank: Blank) -> list[int]:
        """Returns the ids of which one must follow a candidate; all ordinary ones where the next token is unknown."""
        known = self.layout.terminators() or self.layout.following(blank)[:1]
        return known or np.flatnonzero(~self.excluded).tolist()

    def _sources(self, blanks: Sequence[tuple[Blank, int]]) -> list[list[int]] | None:
        sources = [self.layout.source(blank, num_tokens) for blank, num_tokens in blanks]
        return [source for source in sources if source is not None] or None
