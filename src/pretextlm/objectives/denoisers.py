"""A mixture of denoisers of different kinds, each announced by a mode token (Tay et al. 2022).

    tokens    7 8 5 3 9 4 6 2
    R         [NLU] 7 8 <0> 9 4 6 2 </s>             →  <0> 5 3 </s>            few short spans
    X         [NLG] 7 <0> 9 <1> 2 </s>               →  <0> 8 5 3 <1> 4 6 </s>  much is hidden, or in long spans
    S         [S2S] 7 8 5 3 9 4 </s>                 →  6 2 </s>                the end is hidden: no sentinel

Paper: UL2: Unifying Language Learning Paradigms, https://arxiv.org/abs/2205.05131. The preset "ul2" is its table 1:

    R   spans of 3 or 8 tokens on average, 15 % hidden
    X   spans of 3 or 8, 50 % hidden; spans of 64, 15 % or 50 % hidden
    S   a prefix language model that hides a quarter on average

Each of the seven makes the same share of the rows, as in its published code. The preset "teaching" is the smaller mix
that tutorials show: R hides spans of 3 to 8 tokens, S ("short") of 1 to 3, X of 12 to 64.

Every kind has rows of its own size, so that each fills the input row with its mode token counted in; the published code
puts that token on top. How many rows of each kind a run of rows holds is exact (data/mixture.py). A denoiser with a
single span hides the same place of every row, the last, unless edges="free".

Requires </s>, the pad id that starts a decoder, the mode tokens, and sentinels for the most spans of a row (128 in rows
of 512 tokens under "ul2"). Suits an encoder-decoder; with layout="prefix", a decoder that sees the source in both
directions. Rows are plain text, documents one after another. Span corruption and prefix language modelling are its
parts, of which it is the mixture.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import BeforeValidator, Field, model_validator

from pretextlm.batch import Batch, Rows
from pretextlm.config import Config
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.special_tokens import NLU, REGULAR
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import did_you_mean
from pretextlm.objectives.base import Objective, Role
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.objectives.shared import layout
from pretextlm.objectives.shared.layout import I32, I64
from pretextlm.objectives.shared.measures import TOKEN_ACCURACY, Measure
from pretextlm.objectives.shared.prefix_split import PrefixSplit
from pretextlm.objectives.shared.sentinel_layout import SentinelLayout
from pretextlm.objectives.shared.span_exact_match import SPAN_EXACT_MATCH
from pretextlm.objectives.shared.span_noise import MAX_RATE, Edges, Spans
from pretextlm.scoring.blank_layout import BlankLayout

Mode = Literal["[NLU]", "[NLG]", "[S2S]", "[R]", "[S]", "[X]"]


_LENGTHS = "a mean of at least 1, or [low, high] with 1 ≤ low ≤ high"


def _lengths(value: Any) -> Any:
    numbers = value if isinstance(value, tuple) else (value,)
    is_range = all(isinstance(n, int) for n in numbers) and len(numbers) == 2
    if isinstance(value, bool) or not (is_range or isinstance(value, int | float)):
        raise ValueError(f"it is not {_LENGTHS}")
    return value


class Denoiser(Config):
    """One row of the table.

    Args:
        name: of the variant; by default composed of the other fields.
        mode: special token before the source.
        kind: "span" hides spans under sentinels, "prefix" the end of the text.
        rate: share of the tokens that are hidden; of a prefix, on average and at most one half.
        mean_span_length: hidden tokens per span: their mean, or [low, high], the shortest and the longest. Every way to
            cut the hidden tokens into such spans is equally likely. 0 for a prefix, which has no spans.
        weight: share of the rows, against the weights of the others.
    """

    name: str = Field(default="", description="name of the variant")
    mode: Mode = Field(description="special token before the source")
    kind: Literal["span", "prefix"] = Field(default="span", description="hide spans, or the end of the text")
    rate: float = Field(default=0.15, gt=0, le=MAX_RATE, description="share of the tokens that are hidden")
    mean_span_length: Annotated[float | tuple[int, int], BeforeValidator(_lengths)] = Field(
        default=0.0, description="hidden tokens per span: the mean, or [low, high]"
    )
    weight: float = Field(default=1.0, gt=0, description="share of the rows, against the others")

    @model_validator(mode="after")
    def _spans_fit(self) -> Self:
        lengths = self.mean_span_length
        shortest, longest = lengths if isinstance(lengths, tuple) else (lengths, lengths)
        if self.kind == "prefix":
            if longest:
                raise ValueError(f"a denoiser of kind 'prefix' has no spans: leave out mean_span_length {lengths}")
            if self.rate > 0.5:
                raise ValueError(f"a denoiser of kind 'prefix' hides at most one half: rate {self.rate} exceeds 0.5")
        elif not 1 <= shortest <= longest:
            raise ValueError(f"mean_span_length {lengths} is not {_LENGTHS}")
        return self

    @property
    def title(self) -> str:
        """Its name, or one composed of its fields: "NLG 64 at 0.5"."""
        if self.name:
            return self.name
        lengths = self.mean_span_length
        kind = (
            "prefix"
            if self.kind == "prefix"
            else "-".join(f"{n:g}" for n in (lengths if isinstance(lengths, tuple) else (lengths,)))
        )
        return f"{self.mode.strip('[]')} {kind} at {self.rate:g}"


def _span(mode: Mode, lengths: float | tuple[int, int], rate: float, weight: float = 1.0) -> Denoiser:
    return Denoiser(mode=mode, rate=rate, mean_span_length=lengths, weight=weight)


PRESETS: dict[str, tuple[Denoiser, ...]] = {
    "ul2": (
        _span("[NLU]", 3.0, 0.15),
        _span("[NLU]", 8.0, 0.15),
        _span("[NLG]", 3.0, 0.5),
        _span("[NLG]", 8.0, 0.5),
        _span("[NLG]", 64.0, 0.15),
        _span("[NLG]", 64.0, 0.5),
        Denoiser(mode="[S2S]", kind="prefix", rate=0.25),
    ),
    "teaching": (
        _span("[R]", (3, 8), 0.15, 0.5),
        _span("[S]", (1, 3), 0.15, 0.25),
        _span("[X]", (12, 64), 0.5, 0.25),
    ),
}


def _table(value: Any) -> Any:
    """Returns the preset of a name, and any other value as it is."""
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"there is no table {value!r}. {did_you_mean(value, PRESETS)} Or give a table of your own")
    return PRESETS[value]


class Denoisers(Objective):
    """A mixture of denoisers.

    Args:
        table: a preset, "ul2" or "teaching", or a table of denoisers.
        modes: the source begins with the denoiser's mode token.
        edges: as for span corruption.
        final_sentinel: as for span corruption; a target without sentinels has none.
        layout: "encoder_decoder", or "prefix" for one decoder row that holds source and target.
    """

    name: ClassVar[str] = "denoisers"
    title: ClassVar[str] = "Mixture of denoisers"
    paper: ClassVar[str] = "Tay et al. 2022, https://arxiv.org/abs/2205.05131"
    summary: ClassVar[str] = (
        "Texts are damaged in several ways (few short spans missing, many or long ones, or the end), and a "
        "token says in which; the decoder writes what is missing."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder", "decoder")
    measures: ClassVar[tuple[Measure, ...]] = (TOKEN_ACCURACY, SPAN_EXACT_MATCH)
    roles: ClassVar[frozenset[Role]] = frozenset({"rewrites"})

    table: Annotated[tuple[Denoiser, ...], BeforeValidator(_table)] = Field(
        default=cast("Any", "ul2"),
        validate_default=True,
        min_length=1,
        description='the denoisers: "ul2", "teaching", or a table of your own',
    )
    modes: bool = Field(default=True, description="the source begins with the denoiser's mode token")
    edges: Edges = Field(default="t5", description="rows begin with text and end hidden (t5), or either way (free)")
    final_sentinel: bool = Field(default=False, description="every target with sentinels ends with one more")
    layout: Literal["encoder_decoder", "prefix"] = Field(
        default="encoder_decoder", description="two rows, or source and target in one decoder row"
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        titles = [row.title for row in self.table]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"two denoisers are called {twice[0]!r}: add their weights, or give each a name")
        return self

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the architecture of the layout."""
        return ("encoder_decoder",) if self.layout == "encoder_decoder" else ("decoder",)

    def variant_names(self) -> list[str]:
        """Returns the titles of the denoisers."""
        return [row.title for row in self.table]

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "prefix" if self.layout == "prefix" else "causal"

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """By sentinels, where a denoiser hides spans: of several the one in regular mode, else that which hides least.

        A text is continued by a denoiser that hides the end of a text, if there is one.
        """
        spans = [row for row in self.table if row.kind == "span"]
        if not spans:
            return None
        regular = min([row for row in spans if row.mode in (NLU, REGULAR)] or spans, key=lambda row: row.rate)
        ending = next((row for row in self.table if row.kind == "prefix"), None)

        def mode(row: Denoiser) -> list[int]:
            return [vocabulary.id_of(row.mode)] if self.modes else []

        return SentinelLayout(
            vocabulary, architecture == "decoder", mode(regular), None if ending is None else mode(ending)
        )

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns no special tokens: documents follow each other."""
        return Frame()

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns, for each denoiser, the longest row that fills `length`, the mode token included.

        Source and target in one row may leave a position or two, since a further span takes three.

        Raises:
            UserError: the length or the vocabulary does not suit a denoiser; names it.
        """
        return [self._variant(row, vocabulary, length) for row in self.table]

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the batch of (B, L) tokens of one variant. A row that ends in padding is a shorter text."""
        row = self.table[rows.variant]
        noise = self._noise(row)
        mode = vocabulary.id_of(row.mode) if self.modes else None

        def lay_out(tokens: I32, example_ids: I64, rng: CounterRNG) -> Batch:
            if isinstance(noise, PrefixSplit):
                write = noise.joint_rows if self._joint else noise.pair_rows
                return write(tokens, example_ids, vocabulary, rng, mode)
            source, target = noise.split(tokens, vocabulary, rng, mode)
            return layout.write(source, target, vocabulary, example_ids, self._joint)

        return layout.each_length(rows, vocabulary, rng, lay_out)

    def _variant(self, row: Denoiser, vocabulary: Vocabulary, length: int) -> Variant:
        if self.modes:
            vocabulary.id_of(row.mode)
        noise = self._noise(row)
        noise.check(length, self._joint, vocabulary)
        raw = noise.raw_length(length, self._joint)
        width, target = noise.widths(raw)
        if self._joint:
            return Variant(row.title, raw=raw, length=noise.occupied(raw, True), weight=row.weight)
        return Variant(row.title, raw=raw, length=width, decoder_length=target, weight=row.weight)

    def _noise(self, row: Denoiser) -> Spans | PrefixSplit:
        name = f"The denoiser {row.title!r}"
        if row.kind == "prefix":
            return PrefixSplit(row.rate, self.modes, name)
        return Spans(row.rate, row.mean_span_length, self.edges, self.final_sentinel, self.modes, name)

    @property
    def _joint(self) -> bool:
        return self.layout == "prefix"
