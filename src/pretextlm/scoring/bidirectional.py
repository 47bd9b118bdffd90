"""The bidirectional engine: hidden tokens are predicted at their places, from the known tokens on both sides.

    given candidate w₁ … wₙ        Σ log p(wᵢ | w₁ … wᵢ₋₁, n - i + 1 places open, both sides)
    its own candidates             the surest open place is filled first, then the next, seeing the first

How many tokens a candidate has is a condition, not an event: every number is tried, all equally likely beforehand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.model.transformer import Transformer
from pretextlm.scoring.blank import Blank, Candidate
from pretextlm.scoring.blank_layout import OPEN, InPlaceLayout
from pretextlm.scoring.log_probabilities import LOGITS_PER_BATCH, hidden_states_at, score_labels
from pretextlm.scoring.scorer import Scorer, TokenIds
from pretextlm.scoring.token_texts import TokenTexts

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class _Partial:
    """A candidate of which some places are filled (OPEN elsewhere), and their summed log-probability."""

    blank: int
    tokens: tuple[int, ...]
    log_probability: float

    @property
    def open_places(self) -> list[int]:
        return [place for place, token in enumerate(self.tokens) if token == OPEN]

    def filled(self, place: int, token: int, log_probability: float) -> _Partial:
        tokens = (*self.tokens[:place], token, *self.tokens[place + 1 :])
        return _Partial(self.blank, tokens, self.log_probability + log_probability)


class BidirectionalScorer(Scorer):
    """Scores given candidates by the chain rule from left to right, and its own in the order they were filled in."""

    layout: InPlaceLayout

    def __init__(self, model: Transformer, texts: TokenTexts, layout: InPlaceLayout) -> None:
        super().__init__(model, texts, layout)

    def log_likelihoods(
        self, blanks: Sequence[Blank], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[NDArray[np.float64]]:
        # Candidates (5, 6) and (5, 7) share the rows "open open" and "5 open": each distinct row is read once.
        rows: dict[tuple[int, tuple[int, ...]], int] = {}
        owners, labels, row_N, place_N = [], [], [], []
        ends = np.cumsum([0, *map(len, candidates)])
        for blank, many in enumerate(candidates):
            for number, candidate in enumerate(many):
                for place, token in enumerate(candidate):
                    known = (*candidate[:place], *[OPEN] * (len(candidate) - place))
                    row_N.append(rows.setdefault((blank, known), len(rows)))
                    place_N.append(place)
                    labels.append(token)
                    owners.append(ends[blank] + number)
        hidden_ND = self._hidden_states(blanks, list(rows), row_N, place_N)
        logs = score_labels(self.model, hidden_ND, torch.tensor(labels, device=hidden_ND.device)).log_probabilities
        totals = np.bincount(owners, weights=logs, minlength=ends[-1])
        return np.split(totals, ends[1:-1])

    def best_candidates(self, blanks: Sequence[Blank], top: int, max_tokens: int) -> list[list[Candidate]]:
        partial = [
            _Partial(number, (OPEN,) * length, 0.0)
            for number, blank in enumerate(blanks)
            for length in ([blank.num_tokens] if blank.num_tokens else range(1, max_tokens + 1))
        ]
        done: list[list[Candidate]] = [[] for _ in blanks]
        while partial:
            grown = _likeliest(self._fill_one_place(blanks, partial, top), top)
            for p in grown:
                if not p.open_places:
                    done[p.blank].append(Candidate(p.tokens, p.log_probability))
            partial = [p for p in grown if p.open_places]
        return [sorted(many, key=lambda candidate: -candidate.score)[:top] for many in done]

    @torch.inference_mode()
    def _fill_one_place(self, blanks: Sequence[Blank], partial: list[_Partial], top: int) -> list[_Partial]:
        """Returns each partial candidate with one more place filled, by each of the `top` likeliest tokens there."""
        open_places = [p.open_places[:1] if self.layout.left_to_right else p.open_places for p in partial]
        row_N = [row for row, places in enumerate(open_places) for _ in places]
        place_N = [place for places in open_places for place in places]
        hidden_ND = self._hidden_states(blanks, [(p.blank, p.tokens) for p in partial], row_N, place_N)
        # Row number in `excluded_first` of each open place: that of its blank, or for a later place an empty one.
        excluded_first = np.vstack([self.excluded_first(blanks), np.zeros_like(self.excluded)])
        first_N = [partial[row].blank if place == 0 else -1 for row, place in zip(row_N, place_N, strict=True)]
        logs, tokens = self._top_tokens(hidden_ND, excluded_first, np.array(first_N), top)
        # The surest place of a row is the one whose best token is the likeliest.
        first = np.flatnonzero(np.diff(row_N, prepend=-1))
        surest = [
            int(np.argmax(best)) + start for start, best in zip(first, np.split(logs[:, 0], first[1:]), strict=True)
        ]
        return [
            p.filled(place_N[n], int(token), float(log))
            for p, n in zip(partial, surest, strict=True)
            for token, log in zip(tokens[n], logs[n], strict=True)
            if log > -np.inf
        ]

    def _top_tokens(
        self, hidden_ND: Tensor, excluded_RV: NDArray[np.bool_], row_N: I64, top: int
    ) -> tuple[NDArray[np.float64], I64]:
        """Returns (N, top) log-probabilities and ids of the likeliest tokens that are not excluded, best first.

        Args:
            excluded_RV: ids that are left out beside `excluded`, row `row_N[n]` at place n.
        """
        logs, tokens = [], []
        for start in range(0, len(row_N), LOGITS_PER_BATCH):
            part = slice(start, start + LOGITS_PER_BATCH)
            excluded = torch.from_numpy(self.excluded | excluded_RV[row_N[part]]).to(hidden_ND.device)
            scores = self.model.logits(hidden_ND[part]).float().log_softmax(dim=1).masked_fill(excluded, float("-inf"))
            best = scores.topk(min(top, scores.size(1)), dim=1)
            logs.append(best.values.double().cpu().numpy())
            tokens.append(best.indices.cpu().numpy())
        return np.concatenate(logs), np.concatenate(tokens)

    def _hidden_states(
        self,
        blanks: Sequence[Blank],
        candidates: Sequence[tuple[int, tuple[int, ...]]],
        row_N: Sequence[int],
        place_N: Sequence[int],
    ) -> Tensor:
        """Returns (N, D) hidden states that predict place `place_N[n]` of candidate `row_N[n]`.

        Args:
            candidates: (number of a blank, its tokens with open places).
        """
        rows = [self.layout.row(blanks[blank], tokens) for blank, tokens in candidates]
        columns = [rows[row].columns[place] for row, place in zip(row_N, place_N, strict=True)]
        return hidden_states_at(self.model, self.vocabulary, rows, np.array(row_N), np.array(columns))


def _likeliest(partial: list[_Partial], top: int) -> list[_Partial]:
    """Returns the `top` likeliest of each blank and length, without repetitions."""
    groups: dict[tuple[int, int], dict[tuple[int, ...], _Partial]] = {}
    for p in sorted(partial, key=lambda p: -p.log_probability):
        group = groups.setdefault((p.blank, len(p.tokens)), {})
        if len(group) < top:
            group.setdefault(p.tokens, p)
    return [p for group in groups.values() for p in group.values()]
