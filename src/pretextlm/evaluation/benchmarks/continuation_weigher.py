"""A decoder goes on from a text: Σ log p(token | everything before it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pretextlm.evaluation.benchmarks.weigh import Ids, Tick, Weigher, Weight, batches
from pretextlm.evaluation.cloze import Opening, TokenTexts, can_fill, filler
from pretextlm.evaluation.prompts import target_of
from pretextlm.evaluation.scoring import weigh_continuations
from pretextlm.objectives.text_to_text import TextToText

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective


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
        for part in batches(sizes, [len(numbers) for _, numbers in jobs], self.batch_size):
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
