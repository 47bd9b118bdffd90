"""Read the beginning of a text in both directions and write the rest (Liu et al. 2018, Raffel et al. 2020).

    tokens    <s> 7 8 9 4 5 </s>                      the first four are shown
    input     <s> 7 8 9 4 5
    labels     -  - - 4 5 </s>                        - : no loss
    prefix     4  4 4 4 4 4                           <s> 7 8 9 see each other; 4 and 5 see the tokens before them

The position of the last shown token predicts the first token that is not shown, and sees all shown tokens. Packed
documents do not see each other, and each has a cut of its own.

With layout="encoder_decoder" the encoder reads the shown part and the decoder predicts the rest;
objectives/shared/prefix_split.py explains how that needs no padding.

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
https://arxiv.org/abs/1910.10683 (section 3.2); before it Generating Wikipedia by Summarizing Long Sequences,
https://arxiv.org/abs/1801.10198. The position of the cut follows T5's released code.

Requires <s> and </s> for a decoder; </s> and the pad id that starts a decoder for an encoder-decoder, which reads
running text without a token between documents, as span corruption does: a </s> inside the predicted part would end it.
Suits a decoder or an encoder-decoder. It is causal language modelling that has no loss on the shown part but sees it in
both directions; UL2 mixes it with span corruption.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective, Role
from pretextlm.objectives.causal import CausalLayout
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.bounded_lengths import between
from pretextlm.objectives.shared.measures import PERPLEXITY, Measure
from pretextlm.objectives.shared.prefix_split import CUT, I32, I64, PrefixSplit, prefix_range
from pretextlm.scoring.blank import Blank, DecoderPrompt
from pretextlm.scoring.blank_layout import FOLLOWING_TOKENS, BlankLayout


class Prefix(Objective):
    """Prefix language modelling: the loss is on the tokens after a random position of each text.

    Args:
        rate: share of a text that is to be predicted, on average. Of n tokens, any number from 1 to n - 1 is shown at a
            rate of one half, and from (1 - 2 · rate) · (n - 1) at a lower one, each equally likely.
        layout: "prefix" for one decoder row, or "encoder_decoder".
    """

    name: ClassVar[str] = "prefix"
    title: ClassVar[str] = "Prefix language modelling"
    paper: ClassVar[str] = "Raffel et al. 2020, https://arxiv.org/abs/1910.10683"
    summary: ClassVar[str] = (
        "The beginning of a text is read as a whole, in both directions, and the rest is written after it."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder", "encoder_decoder")
    measures: ClassVar[tuple[Measure, ...]] = (PERPLEXITY,)
    roles: ClassVar[frozenset[Role]] = frozenset({"rewrites"})

    rate: float = Field(default=0.5, gt=0, le=0.5, description="share of a text that is to be predicted, on average")
    layout: Literal["prefix", "encoder_decoder"] = Field(
        default="prefix", description="the shown part and the rest in one decoder row, or in two"
    )

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the architecture of the layout."""
        return ("decoder",) if self.layout == "prefix" else ("encoder_decoder",)

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "prefix" if self.layout == "prefix" else "causal"

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns <s> before and </s> after every document of a decoder row; no special tokens in running text."""
        return Frame(begin=vocabulary.begin, end=vocabulary.eos) if self.layout == "prefix" else Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns decoder rows of length + 1 that overlap by one token; or two halves that fill the encoder.

        Raises:
            UserError: the length is too short to be cut in two.
        """
        if self.layout == "prefix":
            if length < 1:
                raise UserError(f"Prefix rows of {length} tokens are empty.", "Give a length of at least 1.")
            return [Variant("main", raw=length + 1, length=length, overlap=1)]
        self._split.check(length, False, vocabulary)
        raw = self._split.raw_length(length)
        width, target = self._split.widths(raw)
        return [Variant("main", raw=raw, length=width, decoder_length=target)]

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The text before the blank is the prefix; the candidate and the text after it are written."""
        return PrefixLayout(vocabulary, self.frame(vocabulary), joint=architecture == "decoder")

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns decoder rows (B, T) of (B, T + 1) tokens, or encoder and decoder rows of (B, L) tokens."""
        if self.layout == "prefix":
            return self._packed(rows, rng)

        def lay_out(tokens: I32, example_ids: I64, rng: CounterRNG) -> Batch:
            return self._split.pair_rows(tokens, example_ids, vocabulary, rng)

        return layout.each_length(rows, vocabulary, rng, lay_out)

    @property
    def _split(self) -> PrefixSplit:
        return PrefixSplit(self.rate)

    def _packed(self, rows: Rows, rng: CounterRNG) -> Batch:
        """Returns decoder rows in which each document has its own cut, by the random number of its index in the row."""
        tokens, segments = rows.matrix(rows.tokens), rows.matrix(rows.segment_ids)
        positions = rows.matrix(rows.position_ids)
        # Documents begin where the position is 0. So does each padding token: it counts as a shown text of one token.
        starts = np.flatnonzero(rows.position_ids == 0)
        lengths = np.diff(starts, append=len(rows.tokens))
        low, high = prefix_range(lengths, self.rate)
        draws = rng.bits(CUT, int(rows.segment_ids.max(initial=0)) + 1)
        cut = between(draws[starts // rows.width, rows.segment_ids[starts]], low, high)
        prefix = rows.matrix(np.repeat(cut.astype(np.int32), lengths))[:, :-1].copy()
        here, following = positions[:, :-1], positions[:, 1:]
        labels = tokens[:, 1:].copy()
        np.copyto(labels, IGNORE, where=(following < prefix) | (following == 0))
        return Batch(
            input_ids=tokens[:, :-1].copy(),
            labels=labels,
            segment_ids=segments[:, :-1].copy(),
            position_ids=here.copy(),
            prefix=prefix,
            attention="prefix",
            example_ids=rows.example_ids,
        )


class PrefixLayout(CausalLayout):
    """The text before the blank is read in both directions and then continued.

        decoder            [<s> The] | cat sat on …         in brackets: sees and is seen in both directions
        encoder-decoder    encoder: The </s>                decoder: [PAD] | cat sat on …

    As with a causal model, a candidate is scored with the text after the blank; an encoder-decoder ends with </s> where
    there is none.

    Args:
        joint: one decoder row holds both; otherwise the prefix is the encoder's.
    """

    def __init__(self, vocabulary: Vocabulary, frame: Frame, joint: bool) -> None:
        super().__init__(vocabulary, frame)
        self.reread = joint

    def source(self, blank: Blank, num_tokens: int) -> list[int] | None:
        return self._prefix(blank.left, blank.starts_document)

    def context(self, blank: Blank) -> list[int]:
        return self._context(self._prefix(blank.left, blank.starts_document))

    def following(self, blank: Blank) -> list[int]:
        if self.reread:
            return super().following(blank)
        return [*blank.right][:FOLLOWING_TOKENS] or [self.vocabulary.eos]

    def prompt(self, tokens: Sequence[int]) -> DecoderPrompt | None:
        source = self._prefix(tokens, starts_document=True)
        return DecoderPrompt(self._context(source), source, self.reread)

    def _prefix(self, tokens: Sequence[int], starts_document: bool) -> list[int]:
        return self.framed(tokens, starts_document) if self.reread else [*tokens, self.vocabulary.eos]

    def _context(self, source: list[int]) -> list[int]:
        return source[-1:] if self.reread else [self.vocabulary.start]
