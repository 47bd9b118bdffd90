"""How likely a model finds a continuation of a text, in the way its kind can tell.

continuation   a decoder's Σ log p(token | everything before it); the continuations of one text share what was read.
               An encoder-decoder reads the text, with a sentinel at its end where it learnt spans.
pseudo         a masked model's Σ log p(token | both sides), each token of the continuation hidden by itself
               (pseudo-log-likelihood, Salazar et al. 2020, https://arxiv.org/abs/1910.14659)
pseudo_word    the same, with what follows in the same word hidden too: long words are no longer guessed from their own
               pieces (Kauf & Ivanova 2023, https://arxiv.org/abs/2305.10588)
cloze          any model that fills blanks: the continuation as what fills a blank at the text's end
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Cloze, Filler, Opening, TokenTexts, can_fill, filler
from pretextlm.evaluation.masked_filler import MaskedFiller
from pretextlm.evaluation.prompts import target_of
from pretextlm.evaluation.scoring import hidden_at, score_labels, weigh_continuations
from pretextlm.objectives.text_to_text import TextToText

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective

METHODS = ("auto", "continuation", "pseudo", "pseudo_word", "cloze")
Tick = Callable[[int], None]
"""Told how many requests more are done."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """A text and how it may go on.

    Attributes:
        context: "" for a continuation that is a whole text.
        against: another continuation: a masked model counts the tokens that both have, and them alone.
    """

    context: str
    continuation: str
    against: str | None = None


@dataclass(frozen=True)
class Weight:
    """Attributes: log_probability: in nats; tokens: how many it is the sum of; greedy: it is what the model itself
    would have written."""

    log_probability: float
    tokens: int
    greedy: bool


class Weigher(ABC):
    """A model as one that weighs continuations.

    Args:
        model: in eval mode.
        objective: what it was trained with.
        texts: the tokenizer's tokens.
        rows: ids from this one on were never trained and cannot come; None for the whole vocabulary.
        batch_size: most continuations that are read at once.

    Attributes:
        cropped: continuations whose text was longer than the model reads; its beginning was left out.
    """

    method: ClassVar[str]

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        texts: TokenTexts,
        rows: int | None = None,
        batch_size: int = 32,
    ) -> None:
        self.model, self.objective, self.texts, self.rows, self.batch_size = model, objective, texts, rows, batch_size
        positions = model.config.positions
        self.longest = positions.max_positions - positions.offset if positions.max_positions else None
        self.cropped = 0

    def weigh(self, requests: Sequence[Request], tick: Tick | None = None) -> list[Weight]:
        """One weight for each request."""
        pairs = [self.split(request.context, request.continuation) for request in requests]
        counted = [self._counted(request, ids) for request, (_, ids) in zip(requests, pairs, strict=True)]
        return self.weigh_ids(pairs, counted, tick)

    @abstractmethod
    def weigh_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], tick: Tick | None = None
    ) -> list[Weight]:
        """The same for ids of (context, continuation), and places of the continuation's tokens that count."""

    def split(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        """Ids of both, cut where the context ends: a space between the two belongs to the continuation."""
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        before = self.texts.encode(bare)
        whole = self.texts.encode(bare + continuation)
        return tuple(before), tuple(whole[len(before) :] or self.texts.encode(continuation))

    def _counted(self, request: Request, ids: Ids) -> Sequence[int]:
        """A model that reads from left to right counts every token: all of them depend on what differs before."""
        return range(len(ids))

    def crop(self, before: Ids, used: int, needed: int) -> Ids:
        """The context without as much of its beginning as `used` tokens are too many.

        Raises UserError when what is `needed` does not fit by itself.
        """
        over = 0 if self.longest is None else used - self.longest
        if over <= 0:
            return before
        if needed > (self.longest or needed):
            raise UserError(
                f"A continuation takes {needed:,} tokens; the model reads {self.longest:,}.",
                "Leave the example out, or take a model for longer texts.",
            )
        self.cropped += 1
        return before[over:]


class ContinuationWeigher(Weigher):
    """A decoder goes on from the text.

    Args:
        framed: a text begins as a document does in training; without it, as its tokenizer leaves it.
    """

    method: ClassVar[str] = "continuation"

    def __init__(
        self,
        model: Transformer,
        objective: Objective,
        texts: TokenTexts,
        rows: int | None = None,
        batch_size: int = 32,
        framed: bool = True,
    ) -> None:
        super().__init__(model, objective, texts, rows, batch_size)
        self.framed = framed
        is_task = isinstance(objective, TextToText)
        self.way = filler(model, objective, texts) if not is_task and can_fill(model, objective) else None

    def opening(self, prompt: Ids) -> Opening | None:
        """Where the decoder stands; None for a model that was not trained to go on from a text."""
        if self.model.decoder is None:
            return None
        if isinstance(self.objective, TextToText):
            return target_of(self.model, self.texts.vocabulary, prompt)
        opening = None if self.way is None else self.way.opening(prompt)
        if opening is None or self.framed or opening.source is not None or not prompt:
            return opening
        return Opening(list(prompt))

    def split(self, context: str, continuation: str) -> tuple[Ids, Ids]:
        if not isinstance(self.objective, TextToText):
            return super().split(context, continuation)
        return tuple(self.texts.encode(context.rstrip())), tuple(self.texts.encode(continuation.strip()))

    def weigh_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], tick: Tick | None = None
    ) -> list[Weight]:
        shared: dict[Ids, list[int]] = {}
        for number, (before, _) in enumerate(pairs):
            shared.setdefault(before, []).append(number)
        jobs: list[tuple[Ids, list[int]]] = []
        for before, numbers in shared.items():
            ordered = sorted(numbers, key=lambda n: len(pairs[n][1]))
            starts = range(0, len(ordered), self.batch_size)
            jobs += [(before, ordered[start : start + self.batch_size]) for start in starts]
        found: dict[int, Weight] = {}
        sizes = [len(before) + max(len(pairs[n][1]) for n in numbers) for before, numbers in jobs]
        for part in _batches(sizes, [len(numbers) for _, numbers in jobs], self.batch_size):
            openings = [self._fitting(jobs[job][0], [pairs[n][1] for n in jobs[job][1]]) for job in part]
            sources = [opening.source for opening in openings if opening.source is not None]
            scored = weigh_continuations(
                self.model,
                self.texts.vocabulary,
                [opening.context for opening in openings],
                [[pairs[n][1] for n in jobs[job][1]] for job in part],
                sources or None,
                reread=openings[0].reread,
                rows=self.rows,
            )
            for job, many in zip(part, scored, strict=True):
                for number, one in zip(jobs[job][1], many, strict=True):
                    logs = one.log_probabilities
                    found[number] = Weight(float(logs.sum()), len(logs), bool(one.right.all()))
            if tick is not None:
                tick(sum(len(jobs[job][1]) for job in part))
        return [found[number] for number in range(len(pairs))]

    def _fitting(self, before: Ids, continuations: Sequence[Ids]) -> Opening:
        """The opening after as much of the context as there is room for."""
        opening, longest = self.opening(before), max(map(len, continuations))
        assert opening is not None, "asked before"
        source = 0 if opening.source is None else len(opening.source)
        if self.model.encoder is None:
            used = source - opening.reread + len(opening.context) + longest - 1
            return self._cropped(before, opening, used, used - len(before))
        self.crop((), len(opening.context) + longest - 1, len(opening.context) + longest - 1)
        return self._cropped(before, opening, source, source - len(before))

    def _cropped(self, before: Ids, opening: Opening, used: int, needed: int) -> Opening:
        kept = self.crop(before, used, needed)
        cut = opening if len(kept) == len(before) else self.opening(kept)
        assert cut is not None, "asked before"
        return cut


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
        for part in _batches(sizes, [1] * len(asked), self.batch_size):
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


class ClozeWeigher(Weigher):
    """The continuation fills a blank at the text's end.

    Attributes:
        exact: it is to be known what the model itself would have written; that takes a search.
    """

    method: ClassVar[str] = "cloze"

    def __init__(
        self, model: Transformer, objective: Objective, texts: TokenTexts, rows: int | None = None, batch_size: int = 32
    ) -> None:
        super().__init__(model, objective, texts, rows, batch_size)
        self.way: Filler = filler(model, objective, texts)
        self.exact = False

    def weigh_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], tick: Tick | None = None
    ) -> list[Weight]:
        found: dict[int, Weight] = {}
        room = 4  # what may stand around a text in a row
        for part in _batches([len(a) + len(b) for a, b in pairs], [1] * len(pairs), self.batch_size):
            clozes = []
            for number in part:
                before, ids = pairs[number]
                needed = len(ids) + room
                spaced = bool(self.texts.begins_word[ids[0]]) if len(before) else False
                before = self.crop(before, len(before) + needed, needed)
                clozes.append(Cloze(before, (), length=len(ids), new_word=spaced))
            scores = self.way.scores(clozes, [[pairs[number][1]] for number in part])
            longest = max(len(pairs[number][1]) for number in part)
            answers = self.way.answers(clozes, 1, longest) if self.exact else None
            for nth, number in enumerate(part):
                ids = pairs[number][1]
                same = answers is not None and answers[nth][0].tokens == ids
                found[number] = Weight(float(scores[nth].sum()), len(ids), same)
            if tick is not None:
                tick(len(part))
        return [found[number] for number in range(len(pairs))]


WEIGHERS: dict[str, type[Weigher]] = {
    one.method: one for one in (ContinuationWeigher, PseudoWeigher, WordPseudoWeigher, ClozeWeigher)
}


def weigher(
    model: Transformer,
    objective: Objective,
    texts: TokenTexts,
    method: str = "auto",
    *,
    rows: int | None = None,
    batch_size: int = 32,
    framed: bool = True,
    exact: bool = False,
) -> Weigher:
    """The way that suits the model, or the one that is asked for.

    A decoder that goes on from a text does so; a masked model has pseudo-log-likelihoods; all others fill blanks.

    Args:
        framed: a decoder's texts begin as its documents did in training.
        exact: what the model itself would write is compared; a masked model then fills a blank of known length.

    Raises:
        UserError: there is no such way, or the model does not know it.
    """
    if method not in METHODS:
        raise UserError(f"There is no scoring {method!r}.", f"Known: {', '.join(METHODS)}.")
    decoder = ContinuationWeigher(model, objective, texts, rows, batch_size, framed)
    goes_on = decoder.opening((0,)) is not None
    if method == "continuation" and not goes_on:
        raise UserError(
            f"A model trained by {objective.name} with these options does not go on from a text.",
            "Score it otherwise: --scoring auto.",
        )
    if method == "continuation" or (method == "auto" and goes_on):
        return decoder
    if method == "auto":
        method = "pseudo" if objective.way_of_filling() == "masked" and not exact else "cloze"
    found = WEIGHERS[method](model, objective, texts, rows, batch_size)
    if isinstance(found, ClozeWeigher):
        found.exact = exact
    return found


def _batches(sizes: Sequence[int], counts: Sequence[int], most: int) -> Iterator[list[int]]:
    """Numbers in groups of like sizes, the counts of each group at most `most` together (or one number)."""
    group: list[int] = []
    total = 0
    for number in np.argsort(np.asarray(sizes, np.int64), kind="stable").tolist():
        if group and total + counts[number] > most:
            yield group
            group, total = [], 0
        group.append(number)
        total += counts[number]
    if group:
        yield group
