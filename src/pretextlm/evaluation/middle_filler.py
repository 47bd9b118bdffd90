"""How a model of filling in the middle fills a blank: it reads the text after it, then that before it, and goes on.

    <s> <fim_prefix> <fim_suffix> sat on the mat. <fim_middle> The cat </s>

</s> says that the middle has met the suffix. A model that has not met this order reads both sides in their own:

    <s> <fim_prefix> The <fim_suffix> sat on the mat. <fim_middle> cat </s>
"""

from __future__ import annotations

from pretextlm.data.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX
from pretextlm.evaluation.causal_filler import CausalFiller
from pretextlm.evaluation.cloze import Cloze
from pretextlm.objectives.fill_in_middle import FillInMiddle


class MiddleFiller(CausalFiller):
    """Scores are log p(answer, and then </s> | both sides), in nats. What stands behind a further blank is not seen."""

    def before(self, cloze: Cloze) -> list[int]:
        prefix, suffix, middle = (self.vocabulary.id_of(mark) for mark in (FIM_PREFIX, FIM_SUFFIX, FIM_MIDDLE))
        head = self.framed([], cloze.begins) if cloze.begins or not cloze.left else []
        if self._suffix_first:
            return [*head, prefix, suffix, *cloze.right, middle, *cloze.left]
        return [*head, prefix, *cloze.left, suffix, *cloze.right, middle]

    def after(self, cloze: Cloze) -> list[int]:
        return [self.vocabulary.eos]

    @property
    def _suffix_first(self) -> bool:
        """The order in which the answer follows the text before it without a mark, where the model has met it."""
        return isinstance(self.objective, FillInMiddle) and self.objective.suffix_first > 0
