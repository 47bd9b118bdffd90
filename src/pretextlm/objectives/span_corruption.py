"""Replace random spans by sentinels, and predict the hidden tokens (Raffel et al. 2020).

    tokens    7 8 5 3 9 4 6                  spans: [8 5], [6]
    source    7 <0> 3 9 4 <1> </s>
    target    <0> 8 5 <1> 6 </s>             with final_sentinel: <0> 8 5 <1> 6 <2> </s>

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
https://arxiv.org/abs/1910.10683. The draw is that of its released code: how many tokens and spans are hidden is fixed
by the row's length, and every way to cut them is equally likely. So a row begins with text and ends with a hidden
span, and no sentinel closes the target, although the paper shows one. With edges="free" a row may begin and end either
way: without it the last token is always hidden and the first never.

Requires </s>, the pad id that starts a decoder, and a sentinel for each span of a row. Suits an encoder-decoder; with
layout="prefix", a decoder that sees the source in both directions. Rows are plain text, documents one after another,
as in T5. Masked language modelling hides the same share but predicts in place; UL2 mixes this with other rates and
span lengths and with prefix language modelling.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pretextlm.batch import Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective, Published, Role
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.layout import I32, I64
from pretextlm.objectives.shared.measures import TOKEN_ACCURACY, Measure
from pretextlm.objectives.shared.sentinel_layout import SentinelLayout
from pretextlm.objectives.shared.span_exact_match import SPAN_EXACT_MATCH
from pretextlm.objectives.shared.span_noise import MAX_RATE, Edges, Spans
from pretextlm.scoring.blank_layout import BlankLayout


class SpanCorruption(Objective):
    """Span corruption: the source has a sentinel for each hidden span, the target the spans after their sentinels.

    Args:
        rate: share of the tokens that are hidden.
        mean_span_length: hidden tokens per span, on average.
        edges: "t5": a row begins with text and ends with a hidden span; "free": every mask with that number of spans
            is equally likely, so that a row may begin and end either way.
        final_sentinel: the target of every row ends with one more sentinel before </s>, even if the row ends with a
            hidden span, so that all targets have one width.
        layout: "encoder_decoder", or "prefix" for one decoder row that holds source and target.
    """

    name: ClassVar[str] = "span_corruption"
    title: ClassVar[str] = "Span corruption"
    paper: ClassVar[str] = "Raffel et al. 2020, https://arxiv.org/abs/1910.10683"
    summary: ClassVar[str] = (
        "Whole spans are cut out and replaced by a marker each, and a decoder writes the missing spans."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder", "decoder")
    measures: ClassVar[tuple[Measure, ...]] = (TOKEN_ACCURACY, SPAN_EXACT_MATCH)
    roles: ClassVar[frozenset[Role]] = frozenset({"rewrites"})
    published_as: ClassVar[tuple[Published, ...]] = (Published(architecture="encoder_decoder"),)

    rate: float = Field(default=0.15, gt=0, le=MAX_RATE, description="share of the tokens that are hidden")
    mean_span_length: float = Field(default=3.0, ge=1, description="hidden tokens per span, on average")
    edges: Edges = Field(default="t5", description="rows begin with text and end hidden (t5), or either way (free)")
    final_sentinel: bool = Field(default=False, description="every target ends with one more sentinel")
    layout: Literal["encoder_decoder", "prefix"] = Field(
        default="encoder_decoder", description="two rows, or source and target in one decoder row"
    )

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the architecture of the layout."""
        return ("encoder_decoder",) if self.layout == "encoder_decoder" else ("decoder",)

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "prefix" if self.layout == "prefix" else "causal"

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns no special tokens: documents follow each other."""
        return Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns the longest row whose source (prefix layout: source and target) fits `length`, without padding.

        Where no row fits exactly (rates that leave no text between spans), the variant is narrower.

        Raises:
            UserError: no row fits, or it needs more sentinels than the vocabulary has.
        """
        self._noise.check(length, self._joint, vocabulary)
        raw = self.raw_length(length)
        width, target = self._noise.occupied(raw, self._joint), self._noise.widths(raw)[1]
        return [Variant("main", raw=raw, length=width, decoder_length=0 if self._joint else target)]

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The blank is a sentinel in the source, and the target says what it hid."""
        return SentinelLayout(vocabulary, joint=architecture == "decoder")

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the batch of (B, L) tokens. A row that ends in padding is treated as the shorter text it is."""

        def lay_out(tokens: I32, example_ids: I64, rng: CounterRNG) -> Batch:
            source, target = self._noise.split(tokens, vocabulary, rng)
            return layout.write(source, target, vocabulary, example_ids, self._joint)

        return layout.each_length(rows, vocabulary, rng, lay_out)

    def raw_length(self, length: int) -> int:
        """Returns the most tokens whose corruption fits `length`; 0 if none does."""
        return self._noise.raw_length(length, self._joint)

    @property
    def _noise(self) -> Spans:
        return Spans(self.rate, self.mean_span_length, self.edges, self.final_sentinel)

    @property
    def _joint(self) -> bool:
        return self.layout == "prefix"
