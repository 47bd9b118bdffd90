"""Predict each token from those before it (Radford et al. 2018).

    stream    <s> 7 8 9 </s> <s> 5 …     a row reads one token more than it holds
    input     <s> 7 8 9 </s> <s>
    labels     7  8 9 </s> -   5         - : no loss, the next document begins here
    position   0  1 2 3    4   0

Paper: Improving Language Understanding by Generative Pre-Training,
https://openai.com/index/language-unsupervised

Requires <s> and </s>. Suits a decoder. Every position has a target, where masked language modelling has one in seven,
but no prediction uses the tokens that follow. Prefix language modelling is the same loss with part of the row visible
in both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective, Published
from pretextlm.objectives.protocol import Architecture
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.measures import BITS_PER_BYTE, PERPLEXITY, Measure
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import FOLLOWING_TOKENS, BlankLayout, ContinuationLayout


class Causal(Objective):
    """Causal language modelling: labels[t] is the row's token t + 1.

    Args:
        isolate: packed documents neither see nor predict each other, and positions restart in each; without it a
            row is one run of text, as in GPT-2.
    """

    name: ClassVar[str] = "causal"
    title: ClassVar[str] = "Causal language modelling"
    paper: ClassVar[str] = "Radford et al. 2018, https://openai.com/index/language-unsupervised"
    summary: ClassVar[str] = "Reads from left to right and predicts every next token from those before it."
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder",)
    measures: ClassVar[tuple[Measure, ...]] = (PERPLEXITY, BITS_PER_BYTE)
    models_every_token: ClassVar[bool] = True
    published_as: ClassVar[tuple[Published, ...]] = (Published(architecture="decoder"),)

    isolate: bool = Field(default=True, description="documents packed in a row do not see each other")

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns <s> before and </s> after every document.

        Before those of a published model is the first token that its tokenizer adds, if any; </s> is after them in
        any case, as it did when the model was trained.
        """
        return Frame(begin=vocabulary.begin, end=vocabulary.eos)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of length + 1 tokens that overlap by one, so that every position has a next token.

        Raises:
            UserError: the length is below 1.
        """
        if length < 1:
            raise UserError(f"Causal rows of {length} tokens are empty.", "Give a length of at least 1.")
        return [Variant("main", raw=length + 1, length=length, overlap=1)]

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The text before the blank is continued by a candidate and the text after it."""
        return CausalLayout(vocabulary, self.frame(vocabulary))

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns inputs and labels (B, T) of (B, T + 1) tokens, without random choices."""
        tokens, segments, positions = (rows.matrix(a) for a in (rows.tokens, rows.segment_ids, rows.position_ids))
        return layout.next_tokens(tokens, segments, positions, rows.example_ids, self.isolate)


class CausalLayout(ContinuationLayout):
    """A decoder continues the text before the blank; a good candidate makes the text after it likely.

        The | cat mouse dog … | sat on the mat.        log p(candidate, following text | text before it)

    Args:
        frame: the special tokens around a document.
    """

    def __init__(self, vocabulary: Vocabulary, frame: Frame) -> None:
        super().__init__(vocabulary)
        self.frame = frame

    def context(self, blank: Blank) -> list[int]:
        return self.framed(blank.left, blank.starts_document)

    def following(self, blank: Blank) -> list[int]:
        end = [self.frame.end] if self.frame.end is not None and blank.ends_document and not blank.later else []
        return [*blank.right, *end][:FOLLOWING_TOKENS]

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        template = self.vocabulary.template
        if template is not None:
            return DecoderPrompt(template.around(tokens) or [self.vocabulary.bos])
        return DecoderPrompt(self.framed(tokens, starts_document=True))

    def framed(self, tokens: Sequence[int], starts_document: bool) -> list[int]:
        """Returns the text behind <s>, or what a published tokenizer adds, where it starts a document.

        An empty context is <s> in any case.
        """
        template, begin = self.vocabulary.template, self.frame.begin
        own = () if begin is None else (begin,)
        before = own if template is None else template.before
        found = [*(before if starts_document or not tokens else ()), *tokens]
        return found or [self.vocabulary.bos]
