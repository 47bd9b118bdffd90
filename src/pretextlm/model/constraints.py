"""Which tokens may come next, whatever their scores: forbidden ones, ends that come too early, repetitions.

Axis letters: B rows, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Constraints:
    """The state of what is forbidden or made less likely in each row.

    Args:
        stops: ids that end a text.
        hidden: ids that are never written.
        min_new_tokens: no text ends before it has so many tokens.
        penalty: scores of tokens that are in a text already are divided by it where they are positive, and multiplied
            where they are negative (Keskar et al. 2019, https://arxiv.org/abs/1909.05858); 1 changes nothing.
        texts: ids of each row so far, which count as repeated.
        vocab_size: V.
        device: where the scores are.
    """

    def __init__(
        self,
        stops: Sequence[int],
        hidden: Sequence[int],
        min_new_tokens: int,
        penalty: float,
        texts: Sequence[Sequence[int]],
        vocab_size: int,
        device: torch.device,
    ) -> None:
        self.stops = torch.tensor(sorted(stops), dtype=torch.int64, device=device)
        self._hidden = torch.tensor(sorted(hidden), dtype=torch.int64, device=device)
        self._min, self._penalty = min_new_tokens, penalty
        self._seen_BV: Tensor | None = None
        if penalty != 1:
            table = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
            for row, ids in enumerate(texts):
                table[row, torch.tensor(list(ids), dtype=torch.int64)] = True
            self._seen_BV = table.to(device)

    def apply(self, scores_BV: Tensor, step: int) -> Tensor:
        """The scores for the token after `step` new ones; may change them in place."""
        if self._seen_BV is not None:
            weighed = torch.where(scores_BV < 0, scores_BV * self._penalty, scores_BV / self._penalty)
            scores_BV = torch.where(self._seen_BV, weighed, scores_BV)
        if step < self._min and len(self.stops):
            scores_BV = scores_BV.index_fill_(1, self.stops, float("-inf"))
        if len(self._hidden):
            scores_BV = scores_BV.index_fill_(1, self._hidden, float("-inf"))
        return scores_BV

    def wrote(self, tokens_B: Tensor) -> None:
        """Each row has one more token."""
        if self._seen_BV is not None:
            self._seen_BV.scatter_(1, tokens_B[:, None], True)

    def keep(self, rows: Tensor) -> None:
        """Go on with the given rows only; a row named several times is repeated."""
        if self._seen_BV is not None:
            self._seen_BV = self._seen_BV[rows]
