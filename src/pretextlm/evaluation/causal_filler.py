"""How a model that reads from left to right fills a blank: it continues the text before it, and then looks which of
its continuations makes the text after the blank most likely.

    The | cat mouse dog … | sat on the mat.        argmax  log p(answer and text after it | text before it)
"""

from __future__ import annotations

from collections.abc import Sequence

from pretextlm.evaluation.cloze import Cloze, Opening
from pretextlm.evaluation.continuation import RIGHT_WINDOW, ContinuationFiller


class CausalFiller(ContinuationFiller):
    """Scores are log p(answer + text after the blank | text before it), in nats, for at most RIGHT_WINDOW tokens."""

    def before(self, cloze: Cloze) -> list[int]:
        return self.framed(cloze.left, cloze.begins)

    def after(self, cloze: Cloze) -> list[int]:
        frame = self.objective.frame(self.vocabulary)
        end = [frame.end] if frame.end is not None and cloze.ends and not cloze.later else []
        return [*cloze.right, *end][:RIGHT_WINDOW]

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        return Opening(self.framed(prompt, begins=True))

    def framed(self, left: Sequence[int], begins: bool) -> list[int]:
        """A text as a document's beginning, or as a piece from its midst."""
        begin = self.objective.frame(self.vocabulary).begin
        return [*([begin] if begin is not None and (begins or not left) else []), *left]
