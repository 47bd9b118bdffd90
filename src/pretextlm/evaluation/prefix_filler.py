"""How a prefix language model fills a blank: it reads the text before it in both directions, and goes on.

    decoder            [<s> The] cat sat on …         in brackets: sees and is seen in both directions
    encoder-decoder    encoder: The </s>              decoder: [PAD] cat sat on …

As with a causal model, an answer is weighed together with the text after the blank.
"""

from __future__ import annotations

from collections.abc import Sequence

from pretextlm.evaluation.causal_filler import CausalFiller
from pretextlm.evaluation.cloze import Cloze, Opening
from pretextlm.evaluation.continuation import RIGHT_WINDOW


class PrefixFiller(CausalFiller):
    """Scores are log p(answer + text after the blank | text before it, read as a whole), in nats.

    The text after the blank counts for at most RIGHT_WINDOW tokens; an encoder-decoder ends with </s> where there is
    none.
    """

    @property
    def reread(self) -> bool:  # type: ignore[override]
        """A decoder goes on from the state of the last token that is shown."""
        return self.model.encoder is None

    def source(self, cloze: Cloze, length: int) -> list[int] | None:
        return self._shown(cloze.left, cloze.begins)

    def before(self, cloze: Cloze) -> list[int]:
        return self._start(self._shown(cloze.left, cloze.begins))

    def after(self, cloze: Cloze) -> list[int]:
        if self.model.encoder is None:
            return super().after(cloze)
        return [*cloze.right][:RIGHT_WINDOW] or [self.vocabulary.eos]

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        source = self._shown(prompt, begins=True)
        return Opening(self._start(source), source, self.reread)

    def _shown(self, left: Sequence[int], begins: bool) -> list[int]:
        return self.framed(left, begins) if self.model.encoder is None else [*left, self.vocabulary.eos]

    def _start(self, source: list[int]) -> list[int]:
        return source[-1:] if self.model.encoder is None else [self.vocabulary.start]
