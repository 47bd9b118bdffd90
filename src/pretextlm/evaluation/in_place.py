"""What fillers share that put an answer where the blank is: one place at a time, from what is known around it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.evaluation.cloze import Answer, Cloze, Filler
from pretextlm.evaluation.scoring import LOGITS_AT_ONCE, score_labels

I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Asked:
    """A blank with some of its places filled: token ids, -1 where a place is still open."""

    blank: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class _Partial(Asked):
    """An answer being filled in, with its summed log-probability."""

    log_probability: float

    @property
    def open(self) -> list[int]:
        return [place for place, token in enumerate(self.tokens) if token < 0]

    def put(self, place: int, token: int, log_probability: float) -> _Partial:
        tokens = (*self.tokens[:place], token, *self.tokens[place + 1 :])
        return _Partial(self.blank, tokens, self.log_probability + log_probability)


class InPlaceFiller(Filler):
    """Answers are scored by log p(answer | its number of tokens, both sides); given choices by the chain rule.

    log p(w₁ … wₙ | both sides) = Σ log p(wᵢ | w₁ … wᵢ₋₁, that n - i + 1 tokens are still open, both sides), in nats.

    How many tokens an answer has is part of the question: every number is tried, all equally likely beforehand, and
    the likeliest answer wins.

    Class attribute `in_order`: places are filled from left to right; else the surest first.
    """

    in_order: ClassVar[bool] = False

    @abstractmethod
    def states(self, clozes: Sequence[Cloze], rows: Sequence[Asked], row_of: I64, place_of: I64) -> Tensor:
        """(N, D) hidden states that predict place `place_of[n]` of the blank in `rows[row_of[n]]`.

        With `in_order`, each row is asked for its first open place alone.
        """

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        partial = [
            _Partial(blank, (-1,) * length, 0.0)
            for blank, cloze in enumerate(clozes)
            for length in ([cloze.length] if cloze.length else range(1, max_tokens + 1))
        ]
        done: list[list[Answer]] = [[] for _ in clozes]
        while partial:
            grown = _best(self._fill_one(clozes, partial, top), top)
            for p in grown:
                if not p.open:
                    done[p.blank].append(Answer(p.tokens, p.log_probability))
            partial = [p for p in grown if p.open]
        return [sorted(answers, key=lambda answer: -answer.score)[:top] for answers in done]

    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        asked: dict[Asked, int] = {}  # a row per blank and known beginning, shared by choices
        owners, labels, row_of, place_of = [], [], [], []
        counts = np.cumsum([0, *map(len, choices)])
        for blank, many in enumerate(choices):
            for nth, choice in enumerate(many):
                for place, token in enumerate(choice):
                    filled = (*choice[:place], *[-1] * (len(choice) - place))
                    row_of.append(asked.setdefault(Asked(blank, filled), len(asked)))
                    place_of.append(place)
                    labels.append(token)
                    owners.append(counts[blank] + nth)
        hidden = self.states(clozes, list(asked), np.array(row_of), np.array(place_of))
        logs = score_labels(self.model, hidden, torch.tensor(labels, device=hidden.device)).log_probabilities
        totals = np.bincount(owners, weights=logs, minlength=counts[-1])
        return np.split(totals, counts[1:-1])

    @torch.inference_mode()
    def _fill_one(self, clozes: Sequence[Cloze], partial: list[_Partial], top: int) -> list[_Partial]:
        """Each answer with one place more filled, by each of the `top` likeliest tokens."""
        open_places = [p.open[:1] if self.in_order else p.open for p in partial]
        row_of = np.array([row for row, places in enumerate(open_places) for _ in places])
        places = np.array([place for some in open_places for place in some])
        hidden = self.states(clozes, partial, row_of, places)
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
        hidden_ND: Tensor,
        banned_first: NDArray[np.bool_],
        row_of: I64,
        places: I64,
        partial: list[_Partial],
        top: int,
    ) -> tuple[NDArray[np.float64], I64]:
        """(N, top) log-probabilities and ids of the likeliest allowed tokens at each open place, best first."""
        device = hidden_ND.device
        blanks = np.array([p.blank for p in partial])
        logs, tokens = [], []
        for start in range(0, len(row_of), LOGITS_AT_ONCE):
            part = slice(start, start + LOGITS_AT_ONCE)
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
