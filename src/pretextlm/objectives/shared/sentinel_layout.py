"""Blanks as sentinels, for span corruption and its mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import ContinuationLayout


class SentinelLayout(ContinuationLayout):
    """Each blank is a sentinel in the source, and the decoder writes what the first one hid.

        source    The <extra_id_0> sat on the <extra_id_1> . </s>
        target    <extra_id_0> | cat <extra_id_1> …

    A candidate ends where the decoder turns to the next sentinel or to </s>. Scored is log p(candidate, its end |
    source, <extra_id_0>).

    Args:
        joint: one decoder row holds source and target.
        mode: ids before a source with sentinels.
        ending_mode: ids before a source whose end is hidden, without a sentinel, for a model that was trained on such;
            None for one that was not.
    """

    beam_width: ClassVar[int] = 4

    def __init__(
        self, vocabulary: Vocabulary, joint: bool, mode: Sequence[int] = (), ending_mode: Sequence[int] | None = None
    ) -> None:
        super().__init__(vocabulary)
        self.joint, self.mode, self.ending_mode = joint, mode, ending_mode
        self.target_start = [*([] if joint else [vocabulary.start]), vocabulary.sentinels[0]]

    def source(self, blank: Blank, num_tokens: int) -> list[int] | None:
        return self._with_sentinels(blank.pieces)

    def context(self, blank: Blank) -> list[int]:
        return self.target_start

    def terminators(self) -> list[int]:
        return [self.vocabulary.eos, *self.vocabulary.sentinels[1:]]

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        """A model that was trained to write the end of a text does so; another has a sentinel there, as in T5."""
        v = self.vocabulary
        if self.ending_mode is None:
            return DecoderPrompt(self.target_start, self._with_sentinels([tokens, []]), stop=tuple(self.terminators()))
        source = [*self.ending_mode, *tokens, v.eos]
        return DecoderPrompt([v.eos] if self.joint else [v.start], source, reread=self.joint)

    def _with_sentinels(self, pieces: Sequence[Sequence[int]]) -> list[int]:
        """Returns the source with a sentinel for every blank between the pieces.

        Raises:
            UserError: there are more blanks than sentinels.
        """
        sentinels = self.vocabulary.sentinels
        if len(pieces) - 1 > len(sentinels):
            raise UserError(
                f"The text has {len(pieces) - 1} blanks; the tokenizer has {len(sentinels)} sentinels.",
                "Fill a shorter part of the text at a time.",
            )
        source = [*self.mode, *pieces[0]]
        for sentinel, piece in zip(sentinels, pieces[1:], strict=False):
            source += [sentinel, *piece]
        return [*source, self.vocabulary.eos]
