"""Requests of benchmarks: the log-likelihood of a continuation of a text. The methods are in request_scorers.py."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretextlm.errors import UserError
from pretextlm.scoring.token_texts import TokenTexts

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.protocol import TrainingObjective

OnProgress = Callable[[int], None]
"""Called with the number of requests done since the last call."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """A text and a continuation.

    Attributes:
        context: "" for a continuation that is a complete text.
        contrast: another continuation: a masked model then counts only the tokens that both have in common.
    """

    context: str
    continuation: str
    contrast: str | None = None


@dataclass(frozen=True)
class Score:
    """A continuation's score.

    Attributes:
        log_likelihood: in nats.
        num_tokens: that it is the sum over.
        is_greedy: the continuation is the one that the model itself would have generated.
    """

    log_likelihood: float
    num_tokens: int
    is_greedy: bool


class RequestScorer(ABC):
    """A model that scores continuations.

    Args:
        model: in eval mode.
        objective: it was trained with.
        texts: the tokenizer's tokens.
        batch_size: continuations that are read at once, at most.

    Attributes:
        max_length: tokens that the model can read; None for any number.
        num_cropped: continuations whose text was longer and lost its beginning.
    """

    method: ClassVar[str]
    subtracts_context: ClassVar[bool] = False
    """Whether scores are log p(continuation | context), from which that of the context's end can be subtracted."""

    def __init__(
        self,
        model: Transformer,
        objective: TrainingObjective,
        texts: TokenTexts,
        batch_size: int = 32,
    ) -> None:
        self.model, self.objective, self.texts = model, objective, texts
        self.batch_size = batch_size
        self.max_length = model.config.positions.length
        self.num_cropped = 0
        self._prepare()

    def _prepare(self) -> None:  # noqa: B027 (optional: decoders need nothing more)
        """Sets up the method for the model. Raises UserError if the model cannot follow it."""

    def score(self, requests: Sequence[Request], on_progress: OnProgress | None = None) -> list[Score]:
        """Returns one score for each request."""
        splits = [self.split(request.context, request.continuation) for request in requests]
        pairs = [(before, ids) for before, ids, _ in splits]
        counted = [self._counted_places(request, ids) for request, (_, ids) in zip(requests, pairs, strict=True)]
        found = self.score_ids(pairs, counted, on_progress)
        # Where a token spans the join, its score includes that of the text's end: log p(end) is subtracted.
        spanned = [number for number, (*_, end) in enumerate(splits) if end] if self.subtracts_context else []
        ends = [(splits[number][0], splits[number][2]) for number in spanned]
        for number, end in zip(spanned, self.score_ids(ends, [range(len(ids)) for _, ids in ends]), strict=True):
            whole = found[number]
            found[number] = replace(whole, log_likelihood=whole.log_likelihood - end.log_likelihood)
        return found

    @abstractmethod
    def score_ids(
        self, pairs: Sequence[tuple[Ids, Ids]], counted: Sequence[Sequence[int]], on_progress: OnProgress | None = None
    ) -> list[Score]:
        """Returns one score for each pair.

        Args:
            pairs: ids of (context, continuation).
            counted: places of each continuation's tokens that count.
            on_progress: see OnProgress.
        """

    def split(self, context: str, continuation: str) -> tuple[Ids, Ids, Ids]:
        """Encodes both together, and cuts where the tokens of the context end.

        A space between the two belongs to the continuation, whose first token it is part of. Without one, a token may
        span the join ("바다" + "에서" in one token). It belongs to the continuation, whose beginning would not count if
        the ids were cut at the number of the context's.

        Returns:
            Ids of the context up to the join or the token that spans it; of the continuation from there on; and of the
            end of the context that is part of that token, as it would be encoded by itself: mostly none.
        """
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        before = self.texts.encode(bare)
        both = self.texts.encode(bare + continuation)
        pairs = zip(before, both, strict=False)
        same = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(before), len(both)))
        if same == len(both):  # all of the continuation is part of the context's tokens
            return tuple(before), tuple(self.texts.encode(continuation)), ()
        return tuple(before[:same]), tuple(both[same:]), tuple(before[same:])

    def _counted_places(self, request: Request, ids: Ids) -> Sequence[int]:
        """Returns the places that count: by default all, since tokens after a difference depend on it."""
        return range(len(ids))

    def crop(self, context: Ids, used: int, needed: int) -> Ids:
        """Returns the context without its first tokens, as many as the row is too long by.

        Args:
            context: ids.
            used: tokens of the row.
            needed: tokens of the row without the context.

        Raises:
            UserError: these alone do not fit.
        """
        excess = 0 if self.max_length is None else used - self.max_length
        if excess <= 0:
            return context
        if needed > (self.max_length or needed):
            raise UserError(
                f"A continuation takes {needed:,} tokens; the model reads {self.max_length:,}.",
                "Leave the example out, or take a model for longer texts.",
            )
        self.num_cropped += 1
        return context[excess:]


def batches(sizes: Sequence[int], counts: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yields numbers in groups of similar size, each with a sum of counts of at most `limit` (or of one number)."""
    group: list[int] = []
    total = 0
    for number in np.argsort(np.asarray(sizes, np.int64), kind="stable").tolist():
        if group and total + counts[number] > limit:
            yield group
            group, total = [], 0
        group.append(number)
        total += counts[number]
    if group:
        yield group
