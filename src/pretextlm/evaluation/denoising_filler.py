"""How a denoising model fills a blank: it reads the text with a [MASK] in it and writes the whole of it anew.

    encoder    <s> The [MASK] sat on the mat . </s>
    decoder    [PAD] <s> The | cat sat on the mat . </s>

What stands before the blank is put into the decoder's mouth; an answer is weighed with the text after it. The noise
the model knows says what stands in the source: one [MASK], one for each hidden token, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.evaluation.cloze import Cloze, Opening, TokenTexts
from pretextlm.evaluation.continuation import RIGHT_WINDOW, ContinuationFiller
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.objectives.denoising import Denoising


class DenoisingFiller(ContinuationFiller):
    """Scores are log p(answer + text after the blank | damaged text, text before it), in nats.

    Of the text after the blank at most RIGHT_WINDOW tokens count, and none behind a further blank.
    """

    def __init__(self, model: Transformer, objective: Objective, texts: TokenTexts) -> None:
        super().__init__(model, objective, texts)
        assert isinstance(objective, Denoising), "the noise says how a blank looks"
        self.noise = objective.noise

    @property
    def counted(self) -> bool:  # type: ignore[override]
        return self.noise == "masking"

    def source(self, cloze: Cloze, length: int) -> list[int] | None:
        v = self.vocabulary
        row = [v.bos, *cloze.left, *self._hole(length), *cloze.right]
        for piece in cloze.later:
            row += [*self._hole(1), *piece]
        return [*row, v.eos]

    def before(self, cloze: Cloze) -> list[int]:
        return [self.vocabulary.start, self.vocabulary.bos, *cloze.left]

    def after(self, cloze: Cloze) -> list[int]:
        end = [] if cloze.later else [self.vocabulary.eos]
        return [*cloze.right, *end][:RIGHT_WINDOW]

    def opening(self, prompt: Sequence[int]) -> Opening | None:
        if self.noise != "infilling":
            return None
        v: Vocabulary = self.vocabulary
        return Opening([v.start, v.bos, *prompt], [v.bos, *prompt, v.mask, v.eos])

    def _hole(self, length: int) -> list[int]:
        """What stands in the source for so many hidden tokens."""
        mask = self.vocabulary.mask
        return {"infilling": [mask], "masking": [mask] * length, "deletion": []}[self.noise]
