"""A masked model guesses each token of a continuation from both sides."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.weigh import Ids, Request, Tick, Weigher, Weight, batches
from pretextlm.evaluation.cloze import Cloze, TokenTexts, filler
from pretextlm.evaluation.masked_filler import MaskedFiller
from pretextlm.evaluation.scoring import hidden_at, score_labels

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective


class PseudoWeigher(Weigher):
    """A masked model looks at each token from both sides.

    Args:
        by_word: what follows in the token's word is hidden too.
    """

    method: ClassVar[str] = "pseudo"
    by_word: ClassVar[bool] = False

    def __init__(
        self, model: Transformer, objective: Objective, texts: TokenTexts, rows: int | None = None, batch_size: int = 32
    ) -> None:
        super().__init__(model, objective, texts, rows, batch_size)
        way = filler(model, objective, texts)
        if not isinstance(way, MaskedFiller):
            raise UserError(
                f"A model trained by {objective.name} does not guess hidden tokens one by one.",
                "Score it otherwise: --scoring auto.",
            )
        self.way = way

    def weigh_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], tick: Tick | None = None
    ) -> list[Weight]:
        fitting = [self._fitting(before, ids) for before, ids in pairs]
        asked = [(number, place) for number, places in enumerate(counted) for place in places]
        sizes = [len(fitting[number][0]) for number, _ in asked]
        logs, right = np.zeros(len(asked)), np.zeros(len(asked), bool)
        left = np.array([len(places) for places in counted])
        for part in batches(sizes, [1] * len(asked), self.batch_size):
            rows = [self._hidden(*fitting[asked[n][0]], pairs[asked[n][0]][1], asked[n][1]) for n in part]
            places = np.array([fitting[asked[n][0]][1] + asked[n][1] - self._shift for n in part])
            hidden = hidden_at(self.model, self.texts.vocabulary, rows, np.arange(len(rows)), places)
            labels = [pairs[asked[n][0]][1][asked[n][1]] for n in part]
            scored = score_labels(self.model, hidden, torch.tensor(labels, device=hidden.device), self.rows)
            logs[part], right[part] = scored.log_probabilities, scored.right
            if tick is not None:
                before = np.count_nonzero(left <= 0)
                np.subtract.at(left, [asked[n][0] for n in part], 1)
                tick(int(np.count_nonzero(left <= 0) - before))
        owners = np.array([number for number, _ in asked], np.int64)
        totals = np.bincount(owners, weights=logs, minlength=len(pairs))
        wrong = np.bincount(owners, weights=~right, minlength=len(pairs))
        return [
            Weight(float(total), len(places), not misses)
            for total, places, misses in zip(totals, counted, wrong, strict=True)
        ]

    @property
    def _shift(self) -> int:
        """A model that predicts the next token is asked one place before."""
        return 1 if getattr(self.objective, "predict", "here") == "next" else 0

    def _counted(self, request: Request, ids: Ids) -> Sequence[int]:
        if request.against is None:
            return range(len(ids))
        _, others = self.split(request.context, request.against)
        blocks = SequenceMatcher(None, ids, others, autojunk=False).get_matching_blocks()
        return [place for block in blocks for place in range(block.a, block.a + block.size)]

    def _fitting(self, before: Ids, ids: Ids) -> tuple[list[int], int]:
        """The whole row, nothing hidden, and the place of the continuation's first token."""
        used = len(self.way.row(Cloze(before, ()), ids))
        cloze = Cloze(self.crop(before, used, used - len(before)), ())
        return self.way.row(cloze, ids), self.way.start(cloze)

    def _hidden(self, row: list[int], start: int, ids: Ids, place: int) -> list[int]:
        """The row with a token hidden, and with `by_word` those behind it in its word."""
        stop = place + 1
        begins = self.texts.begins_word
        if self.by_word and begins.any():
            while stop < len(ids) and not begins[ids[stop]]:
                stop += 1
        mask = self.texts.vocabulary.mask
        return [*row[: start + place], *[mask] * (stop - place), *row[start + stop :]]


class WordPseudoWeigher(PseudoWeigher):
    """The same, by words."""

    method: ClassVar[str] = "pseudo_word"
    by_word: ClassVar[bool] = True
