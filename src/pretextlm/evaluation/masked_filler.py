"""How a masked model fills a blank: it puts some [MASK] there and reads them from both sides.

    The [MASK] sat on the mat.             one token
    The [MASK] [MASK] sat on the mat.      two: the surer one first, then the other, seeing the first

How many tokens an answer has is part of the question: every number is tried, all equally likely beforehand, and the
likeliest answer wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pretextlm.evaluation.cloze import Answer, Cloze, Filler
from pretextlm.evaluation.scoring import hidden_at, score_labels


@dataclass(frozen=True)
class _Partial:
    """An answer being filled in: token ids, -1 where a place is still open, and the summed log-probability."""

    blank: int
    tokens: tuple[int, ...]
    log_probability: float

    @property
    def open(self) -> list[int]:
        return [place for place, token in enumerate(self.tokens) if token < 0]

    def put(self, place: int, token: int, log_probability: float) -> _Partial:
        tokens = (*self.tokens[:place], token, *self.tokens[place + 1 :])
        return _Partial(self.blank, tokens, self.log_probability + log_probability)


class MaskedFiller(Filler):
    """Answers are scored by log p(answer | its number of tokens, both sides); given choices by the chain rule.

    log p(w₁ … wₙ | both sides) = Σ log p(wᵢ | w₁ … wᵢ₋₁, [MASK] for the rest, both sides), in nats.
    """

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        partial = [
            _Partial(blank, (-1,) * length, 0.0)
            for blank, cloze in enumerate(clozes)
            for length in ([cloze.length] if cloze.length else range(1, max_tokens + 1))
        ]
        done: list[list[Answer]] = [[] for _ in clozes]
        while partial:
            grown = _best(self._fill_surest(clozes, partial, top), top)
            for p in grown:
                if not p.open:
                    done[p.blank].append(Answer(p.tokens, p.log_probability))
            partial = [p for p in grown if p.open]
        return [sorted(answers, key=lambda answer: -answer.score)[:top] for answers in done]

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        asked: dict[tuple[int, tuple[int, ...]], int] = {}  # a row per blank and known beginning, shared by choices
        owners, labels, row_of, place_of = [], [], [], []
        counts = np.cumsum([0, *map(len, choices)])
        for blank, many in enumerate(choices):
            for nth, choice in enumerate(many):
                for place, token in enumerate(choice):
                    filled = (*choice[:place], *[-1] * (len(choice) - place))
                    row_of.append(asked.setdefault((blank, filled), len(asked)))
                    place_of.append(self._start(clozes[blank]) + place)
                    labels.append(token)
                    owners.append(counts[blank] + nth)
        rows = [self.row(clozes[blank], filled) for blank, filled in asked]
        hidden = hidden_at(self.model, self.vocabulary, rows, np.array(row_of), np.array(place_of))
        logs = score_labels(self.model, hidden, torch.tensor(labels, device=hidden.device)).log_probabilities
        totals = np.bincount(owners, weights=logs, minlength=counts[-1])
        return np.split(totals, counts[1:-1])

    def row(self, cloze: Cloze, filled: Sequence[int]) -> list[int]:
        """The text as it stands in a row, with -1 in `filled` and further blanks as [MASK]."""
        frame = self.objective.frame(self.vocabulary)
        mask = self.vocabulary.mask
        row = [*self._lead(cloze), *cloze.left, *(mask if token < 0 else token for token in filled), *cloze.right]
        for piece in cloze.later:
            row += [mask, *piece]
        return [*row, frame.end] if frame.end is not None and cloze.ends else row

    def _lead(self, cloze: Cloze) -> list[int]:
        frame = self.objective.frame(self.vocabulary)
        begin = frame.begin if cloze.begins else None
        return [token for token in (frame.lead, begin) if token is not None]

    def _start(self, cloze: Cloze) -> int:
        """Place of the blank's first token in its row."""
        return len(self._lead(cloze)) + len(cloze.left)

    @torch.inference_mode()
    def _fill_surest(self, clozes: Sequence[Cloze], partial: list[_Partial], top: int) -> list[_Partial]:
        """Each answer with one place more filled, the surest one, by each of the `top` likeliest tokens."""
        rows = [self.row(clozes[p.blank], p.tokens) for p in partial]
        row_of = np.array([row for row, p in enumerate(partial) for _ in p.open])
        places = np.array([place for p in partial for place in p.open])
        starts = np.array([self._start(clozes[p.blank]) for p in partial])
        hidden = hidden_at(self.model, self.vocabulary, rows, row_of, starts[row_of] + places)
        logs, tokens = self._likeliest(hidden, self.banned_first(clozes), row_of, places, partial, top)
        first = np.flatnonzero(np.diff(row_of, prepend=-1))
        surest = [
            int(np.argmax(best)) + start for start, best in zip(first, np.split(logs[:, 0], first[1:]), strict=True)
        ]
        return [
            p.put(int(places[n]), int(token), float(log))
            for p, n in zip(partial, surest, strict=True)
            for token, log in zip(tokens[n], logs[n], strict=True)
            if log > -np.inf
        ]

    def _likeliest(
        self,
        hidden_ND: torch.Tensor,
        banned_first: NDArray[np.bool_],
        row_of: NDArray[np.int64],
        places: NDArray[np.int64],
        partial: list[_Partial],
        top: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(N, top) log-probabilities and ids of the likeliest allowed tokens at each open place, best first."""
        device = hidden_ND.device
        blanks = np.array([p.blank for p in partial])
        logs, tokens = [], []
        for start in range(0, len(row_of), 512):
            part = slice(start, start + 512)
            banned = self.banned | (banned_first[blanks[row_of[part]]] & (places[part] == 0)[:, None])
            scores = self.model.logits(hidden_ND[part]).float().log_softmax(dim=1)
            best = scores.masked_fill(torch.from_numpy(banned).to(device), float("-inf")).topk(
                min(top, scores.size(1)), dim=1
            )
            logs.append(best.values.double().cpu().numpy())
            tokens.append(best.indices.cpu().numpy())
        return np.concatenate(logs), np.concatenate(tokens)


def _best(partial: list[_Partial], top: int) -> list[_Partial]:
    """The `top` likeliest of each blank and length."""
    groups: dict[tuple[int, int], dict[tuple[int, ...], _Partial]] = {}
    for p in sorted(partial, key=lambda p: -p.log_probability):
        group = groups.setdefault((p.blank, len(p.tokens)), {})
        if len(group) < top:
            group.setdefault(p.tokens, p)
    return [p for group in groups.values() for p in group.values()]
