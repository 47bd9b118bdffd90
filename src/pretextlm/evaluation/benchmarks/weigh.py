"""What a way of weighing continuations is: how likely a model finds one, in the way its kind can tell (weighers.py)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import TokenTexts

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective

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
        self.longest = (
            positions.max_position_embeddings - positions.offset if positions.max_position_embeddings else None
        )
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


def batches(sizes: Sequence[int], counts: Sequence[int], most: int) -> Iterator[list[int]]:
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
