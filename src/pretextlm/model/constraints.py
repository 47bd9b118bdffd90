"""Constraints on the next token, whatever its score: suppressed tokens, a minimum length, a repetition penalty.

Axis letters: B rows, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Constraints:
    """The constraints of a batch that is generated.

    Args:
        stops: Ids that end a text.
        suppressed: Ids that are never generated.
        min_new_tokens: Fewest tokens before a stop id may come.
        penalty: Scores of tokens that are in a text already are divided by it where they are positive, and multiplied
            where they are negative (Keskar et al. 2019, https://arxiv.org/abs/1909.05858); 1 for none.
        texts: Ids of each row so far, which count as repeated.
        vocab_size: V.
        device: Device of the scores.
    """

    def __init__(
        self,
        stops: Sequence[int],
        suppressed: Sequence[int],
        min_new_tokens: int,
        penalty: float,
        texts: Sequence[Sequence[int]],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.stops = torch.tensor(sorted(stops), dtype=torch.int64, device=device)
        self._suppressed = torch.tensor(sorted(suppressed), dtype=torch.int64, device=device)
        self._min, self._penalty = min_new_tokens, penalty
        self._seen_BV: Tensor | None = None
        if penalty != 1:
            table = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
            for row, ids in enumerate(texts):
                table[row, torch.tensor(list(ids), dtype=torch.int64)] = True
            self._seen_BV = table.to(device)

    def apply(self, scores_BV: Tensor, step: int) -> Tensor:
        """Apply the constraints.

        Args:
            scores_BV: Scores of the token after `step` new ones; they may be changed in place.
            step: Number of tokens generated so far.

        Returns:
            (B, V) scores; -inf for tokens that must not come.
        """
        if self._seen_BV is not None:
            penalized = torch.where(scores_BV < 0, scores_BV * self._penalty, scores_BV / self._penalty)
            scores_BV = torch.where(self._seen_BV, penalized, scores_BV)
        if step < self._min and len(self.stops):
            scores_BV = scores_BV.index_fill_(1, self.stops, float("-inf"))
        if len(self._suppressed):
            scores_BV = scores_BV.index_fill_(1, self._suppressed, float("-inf"))
        return scores_BV

    def update(self, tokens_B: Tensor) -> None:
        """Add the token that each row has generated."""
        if self._seen_BV is not None:
            self._seen_BV.scatter_(1, tokens_B[:, None], True)

    def select_rows(self, rows: Tensor) -> None:
        """Keep, reorder or repeat rows."""
        if self._seen_BV is not None:
            self._seen_BV = self._seen_BV[rows]
