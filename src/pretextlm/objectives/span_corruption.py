"""Replace random spans by sentinels and write out what they hid (Raffel et al. 2020).

    tokens    7 8 5 3 9 4 6                  spans: [8 5], [6]
    source    7 <0> 3 9 4 <1> </s>
    target    <0> 8 5 <1> 6 </s>

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
https://arxiv.org/abs/1910.10683. The draw is that of its released code: how many tokens and spans are hidden is fixed
by the row's length, and every way to cut them is equally likely. So a row begins with text and ends with a hidden
span, and no sentinel closes the target.

Requires </s>, the pad id that starts a decoder, and a sentinel for each span of a row. Suits an encoder-decoder; with
layout="prefix", a decoder that sees the source in both directions. Rows are plain text, documents one after another,
as in T5. Masked language modelling hides the same share but predicts in place; UL2 mixes this with other rates and
span lengths and with prefix language modelling.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.keyed import Keyed
from pretextlm.objectives import layout
from pretextlm.objectives.base import Architecture, Frame, Objective, Variant
from pretextlm.objectives.spans import hidden_lengths, source_and_target, span_counts

TEXT, HIDDEN = range(2)
"""Streams of random numbers: how the text is cut, and how the hidden part is."""

MAX_RATE = 0.9
"""Above it, a row would have to read more than ten times the text that fits into its input."""


class SpanCorruption(Objective):
    """Span corruption: the source carries a sentinel for each hidden span, the target the spans after their sentinels.

    Args:
        rate: share of the tokens that are hidden.
        mean_span_length: hidden tokens per span, on average.
        layout: "encoder_decoder", or "prefix" for one decoder row that holds source and target.
    """

    name: ClassVar[str] = "span_corruption"
    title: ClassVar[str] = "Span corruption"
    paper: ClassVar[str] = "Raffel et al. 2020, https://arxiv.org/abs/1910.10683"
    learns: ClassVar[str] = "to write the missing pieces of a text, each several tokens long, from all that is left."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder", "decoder")

    rate: float = Field(default=0.15, gt=0, le=MAX_RATE, description="share of the tokens that are hidden")
    mean_span_length: float = Field(default=3.0, ge=1, description="hidden tokens per span, on average")
    layout: Literal["encoder_decoder", "prefix"] = Field(
        default="encoder_decoder", description="two rows, or source and target in one decoder row"
    )

    def suits(self) -> tuple[Architecture, ...]:
        """The architecture that the layout is made for."""
        return ("encoder_decoder",) if self.layout == "encoder_decoder" else ("decoder",)

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Nothing stands between documents."""
        return Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """The longest row whose source (prefix layout: source and target) fits `length`, so that nothing is padded.

        Where that cannot be to the token (rates that leave no text between spans), the variant is narrower.

        Raises UserError if nothing fits or the row needs more sentinels than the vocabulary has.
        """
        raw = self.raw_length(length)
        if raw < 2:
            raise UserError(
                f"Span corruption cannot fit text, a sentinel and </s> into {length} tokens.", "Give a longer row."
            )
        noise, spans = self._counts(raw)
        self._check_sentinels(spans, vocabulary)
        source, target = raw - noise + spans + 1, noise + spans + 1
        if self.layout == "prefix":
            return [Variant("main", raw=raw, length=source + target - 1)]
        return [Variant("main", raw=raw, length=source, decoder_length=target)]

    def corrupt(self, rows: Rows, vocabulary: Vocabulary, rng: Keyed) -> Batch:
        """(B, L) tokens → batch. A row that ends in padding is corrupted as the shorter text it is."""
        tokens = rows.matrix(rows.tokens)
        whole = self._lay_out(tokens, rows.example_ids, vocabulary, rng)
        if rows.segment_ids.min(initial=0) >= 0:
            return whole
        lengths = np.count_nonzero(rows.matrix(rows.segment_ids) >= 0, axis=1)
        parts = []
        for length in np.unique(lengths[lengths < rows.width]):
            short = np.flatnonzero(lengths == length)
            part = self._lay_out(tokens[short, :length], rows.example_ids[short], vocabulary, Keyed(rng.keys[short]))
            parts.append((short, part))
        return layout.with_short_rows(whole, parts, vocabulary)

    def raw_length(self, length: int) -> int:
        """The most tokens whose corruption fits `length`; 0 if none does.

        For encoder-decoders it is T5's helper, with its exception: at a rate of one half the target is not to be
        longer than the source.
        """
        low, high = 0, 2 * length + 2
        while self._occupied(high) <= length:
            low, high = high, 2 * high
        while high - low > 1:  # the room that n tokens take never shrinks as n grows
            middle = (low + high) // 2
            low, high = (middle, high) if self._occupied(middle) <= length else (low, middle)
        noise, spans = self._counts(low)
        if self.layout == "encoder_decoder" and self.rate == 0.5 and noise + spans + 1 > length:
            low -= 1
        return low

    def _counts(self, length: int) -> tuple[int, int]:
        return span_counts(length, self.rate, self.mean_span_length)

    def _occupied(self, raw: int) -> int:
        """Positions of the input row that `raw` tokens fill."""
        noise, spans = self._counts(raw)
        source = raw - noise + spans + 1
        return source if self.layout == "encoder_decoder" else source + noise + spans

    def _lay_out(
        self, tokens: NDArray[np.int32], example_ids: NDArray[np.int64], vocabulary: Vocabulary, rng: Keyed
    ) -> Batch:
        length = tokens.shape[1]
        noise, spans = self._counts(length)
        self._check_sentinels(spans, vocabulary)
        hidden = hidden_lengths(rng, (TEXT, HIDDEN), length, noise, spans)
        sentinels = np.asarray(vocabulary.sentinels[:spans], dtype=np.int32)
        source, target = source_and_target(tokens, hidden, sentinels, vocabulary.eos)
        write = layout.encoder_decoder if self.layout == "encoder_decoder" else layout.prefix
        return write(source, target, vocabulary, example_ids)

    def _check_sentinels(self, spans: int, vocabulary: Vocabulary) -> None:
        if spans > len(vocabulary.sentinels):
            raise UserError(
                f"Span corruption needs {spans} sentinels for rows of this length; "
                f"the tokenizer has {len(vocabulary.sentinels)}.",
                "Prepare the data with more sentinels, shorten the rows, or raise mean_span_length.",
            )
