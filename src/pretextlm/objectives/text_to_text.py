"""Predict the target text of a source text: any task as text to text, with span corruption (Raffel et al. 2020).

    pairs              [translate: A dog . | Ein Hund .]   [sst2: great | positive]
    encoder            translate: A dog . </s>   sst2: great </s>   [PAD]
    decoder input      [PAD] Ein Hund .          [PAD] positive     [PAD]
    decoder labels     Ein Hund . </s>           positive </s>      -         - : no loss
    segments           0 … of the first pair     1 … of the second  -1

Pairs packed in one row do not see each other, neither inside the encoder and the decoder nor from one to the other.
With layout="prefix" a decoder reads each source in both directions and then predicts its target:

    input              translate: A dog . </s> Ein Hund . </s>
    labels             -          - -   -  Ein Hund  . </s> -
    prefix             5: the source with its </s>

Paper: Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer,
https://arxiv.org/abs/1910.10683: text to text in section 2.4, mixing of tasks in 3.5.2, pre-training on tasks and
unlabelled text together in 3.5.3.

Requires a store with pairs, of which a source's prefix names the task (`data prepare 'FILE?source=…&target=…'`), plain
documents for the unsupervised share, </s>, and the tokens of the denoiser. Suits an encoder-decoder; with
layout="prefix", a decoder. The denoiser is span corruption, or UL2's mixture, or a prefix language model. Without a
share of it this is training from scratch on all tasks at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Objective
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.objectives.registry import OBJECTIVES, ObjectiveField, with_role
from pretextlm.objectives.shared.measures import TOKEN_ACCURACY, Measure
from pretextlm.objectives.shared.span_exact_match import SPAN_EXACT_MATCH
from pretextlm.objectives.span_corruption import SpanCorruption
from pretextlm.scoring.blank import DecoderPrompt
from pretextlm.scoring.blank_layout import BlankLayout

if TYPE_CHECKING:
    from pretextlm.data.packed_pairs import PackedPairs, RowCapacity
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.store import Split

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

PAIRS = "pairs"
"""Name of the variant of supervised rows."""


class TextToText(Objective):
    """Supervised pairs, packed, mixed with rows of denoised plain documents.

    A text that is longer than its row is cut at its end, before </s>; in the prefix layout the longer text of a pair
    is cut until both fit (`data.packed_pairs.PackedPairs.cut` counts them). The last position of an encoder's and of a
    decoder's row is always padding, so that the padding of each can attend to that of the other.

    Args:
        layout: "encoder_decoder", or "prefix" for one decoder row that holds source and target.
        target_length: tokens of a decoder row of pairs; 0: as many as an input row. Rows are full where its ratio to
            the length is that of targets to sources (`PackedPairs.fill`).
        unsupervised: share of the rows that are plain documents under the denoiser.
        denoiser: the objective on those, "span_corruption", "denoisers" or "prefix", in the same layout.
        limit, temperature: mix sources of n pairs in proportion to min(n, limit)^(1 / temperature); 0: no limit.

    Raises:
        UserError: a target_length in the prefix layout, which has no row of its own for targets; a denoiser of another
            kind or layout (through `parse`).
    """

    name: ClassVar[str] = "text_to_text"
    title: ClassVar[str] = "Text to text"
    paper: ClassVar[str] = "Raffel et al. 2020, https://arxiv.org/abs/1910.10683"
    summary: ClassVar[str] = (
        "Writes the target that belongs to a source, whatever the task, and the missing spans of plain text."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder_decoder", "decoder")
    writes_targets: ClassVar[bool] = True
    measures: ClassVar[tuple[Measure, ...]] = (TOKEN_ACCURACY, SPAN_EXACT_MATCH)

    layout: Literal["encoder_decoder", "prefix"] = Field(
        default="encoder_decoder", description="two rows, or source and target in one decoder row"
    )
    target_length: int = Field(default=0, ge=0, description="tokens of a decoder row of pairs; 0: as an input row")
    unsupervised: float = Field(default=0.5, ge=0, le=1, description="share of rows that are plain text, denoised")
    denoiser: ObjectiveField = Field(default=SpanCorruption(), description="the objective on plain text")
    limit: int = Field(default=0, ge=0, description="most pairs of a source that count for its share; 0: all")
    temperature: float = Field(default=1.0, ge=1, description="1: sources in proportion; higher: more alike")

    @model_validator(mode="before")
    @classmethod
    def _same_layout(cls, values: Any) -> Any:
        """Returns the options with the denoiser's layout set to this one, unless it has one."""
        if not isinstance(values, Mapping):
            return values
        denoiser = values.get("denoiser", "span_corruption")
        denoiser = {"name": denoiser} if isinstance(denoiser, str) else denoiser
        named = OBJECTIVES[denoiser["name"]] if isinstance(denoiser, Mapping) and "name" in denoiser else Objective
        if isinstance(denoiser, Mapping) and "layout" in named.model_fields:
            denoiser = {"layout": values.get("layout", "encoder_decoder"), **denoiser}
        return {**values, "denoiser": denoiser}

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.layout == "prefix" and self.target_length:
            raise ValueError(
                "target_length is for a separate decoder row, which the prefix layout does not have: give 0"
            )
        if "rewrites" not in self.denoiser.roles:
            can = with_role("rewrites")
            raise ValueError(f"plain text cannot be read under {self.denoiser.name!r}; it can: {can}")
        if (layout := getattr(self.denoiser, "layout", None)) != self.layout:
            raise ValueError(f"denoiser.layout is {layout!r}, but layout is {self.layout!r}: give both the same")
        return self

    @property
    def reads_pairs(self) -> bool:
        return self.unsupervised < 1

    def variant_names(self) -> list[str]:
        """Returns the names of the variants with a share of the rows."""
        plain = self.denoiser.variant_names() if self.unsupervised else []
        return [PAIRS, *plain] if self.unsupervised < 1 else plain

    @property
    def noise_period(self) -> int:
        """That of the denoiser: pairs have no noise."""
        return self.denoiser.noise_period

    @property
    def scheduled_noise(self) -> bool:
        """That of the denoiser."""
        return self.denoiser.scheduled_noise

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """The denoiser's, where it has a share."""
        return self.denoiser.blank_layout(vocabulary, architecture) if self.unsupervised else None

    def decoder_prompt(
        self, vocabulary: Vocabulary, architecture: Architecture, tokens: Sequence[int]
    ) -> DecoderPrompt | None:
        """The text is a source, whose target is written."""
        joint = architecture == "decoder"
        return DecoderPrompt([vocabulary.eos if joint else vocabulary.start], [*tokens, vocabulary.eos], reread=joint)

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns the architecture of the layout."""
        return ("encoder_decoder",) if self.layout == "encoder_decoder" else ("decoder",)

    @property
    def decoder_attention(self) -> DecoderAttention:
        return "prefix" if self.layout == "prefix" else "causal"

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns the denoiser's special tokens, for plain documents."""
        return self.denoiser.frame(vocabulary)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of pairs and of plain text, those that have a share.

        Raises:
            UserError: the length has no room for a pair, or does not suit the denoiser.
        """
        found = []
        if self.unsupervised < 1:
            if min(length, self.target_length or length) < 4:
                raise UserError(
                    "Rows of fewer than 4 tokens have no room for a pair and its </s>.",
                    "Give a length, and a target_length, of at least 4.",
                )
            decoder_length = (self.target_length or length) if self.layout == "encoder_decoder" else 0
            width = self._row_capacity(length).width
            found.append(Variant(PAIRS, width, length, decoder_length, weight=1 - self.unsupervised))
        if self.unsupervised:
            plain = self.denoiser.variants(vocabulary, length)
            total = sum(variant.weight for variant in plain)
            found += [dataclasses.replace(v, weight=v.weight / total * self.unsupervised) for v in plain]
        return found

    def reader(self, split: Split, vocabulary: Vocabulary, length: int) -> RowReader:
        """Returns a reader of pairs and plain documents in turn.

        Raises:
            UserError: the split lacks one of them that has a share.
        """
        from pretextlm.data.interleave import InterleavedReader

        count = len(self.variants(vocabulary, length))
        if not self.unsupervised:
            return self._pairs(split, vocabulary, length)
        plain = self.denoiser.reader(self._plain(split), vocabulary, length)
        if self.unsupervised == 1:
            return plain
        readers = [self._pairs(split, vocabulary, length), plain]
        return InterleavedReader(readers, [1 - self.unsupervised, self.unsupervised], [1, count - 1])

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns sources and targets of pairs; rows without token types are plain text for the denoiser."""
        if rows.token_type_ids is None:
            first = int(0 < self.unsupervised < 1 and rows.variant > 0)  # the variant before it is that of the pairs
            return self.denoiser.collate(dataclasses.replace(rows, variant=rows.variant - first), vocabulary, rng)
        return _prefix(rows) if self.layout == "prefix" else self._encoder_decoder(rows, vocabulary)

    def _row_capacity(self, length: int) -> RowCapacity:
        from pretextlm.data.packed_pairs import RowCapacity

        if self.layout == "prefix":
            return RowCapacity(total=length)
        return RowCapacity(source=length - 1, target=(self.target_length or length) - 1)

    def _pairs(self, split: Split, vocabulary: Vocabulary, length: int) -> PackedPairs:
        from pretextlm.data.packed_pairs import MixingRates, PackedPairs, PairFrame

        if not split.pairs.any():
            raise UserError(
                f"The split has no pairs, of which {self.name} reads a share of {1 - self.unsupervised:g} of its rows.",
                "Prepare a store with pairs: pretextlm data prepare 'FILE?source=FIELD&target=FIELD' --out DIR",
            )
        frame = PairFrame(middle=vocabulary.eos, end=vocabulary.eos)
        mixing = MixingRates(self.limit, self.temperature)
        return PackedPairs(split, frame, self._row_capacity(length), vocabulary.pad, mixing)

    def _plain(self, split: Split) -> Split:
        plain = split.plain()
        if not plain.num_tokens:
            raise UserError(
                f"The split has no plain documents, of which {self.name} reads a share of {self.unsupervised:g} of "
                "its rows.",
                "Prepare a store with texts beside the pairs, or set unsupervised=0.",
            )
        return plain

    def _encoder_decoder(self, rows: Rows, vocabulary: Vocabulary) -> Batch:
        """Returns, of (B, W) rows of pairs, encoder rows of their sources and decoder rows of their targets."""
        width = self.target_length or rows.width // 2 + 1  # each of the two rows has one position more than it uses
        is_target = _types(rows) == 1
        source = _Side(rows, ~is_target & (rows.segment_ids >= 0), rows.width + 2 - width)
        target = _Side(rows, is_target, width)
        labels = rows.tokens.take(target.places)
        shifted = rows.tokens.take(target.places - 1)  # the token before: a target follows its source
        opens = np.flatnonzero(~is_target.take(target.places - 1))
        shifted[opens] = vocabulary.start
        positions = rows.position_ids.take(target.places)
        positions -= np.repeat(positions[opens], np.diff(opens, append=len(positions)))
        return Batch(
            input_ids=source.lay_out(rows.tokens.take(source.places), vocabulary.pad),
            segment_ids=source.lay_out(rows.segment_ids.take(source.places), -1),
            position_ids=source.lay_out(rows.position_ids.take(source.places), 0),
            decoder_input_ids=target.lay_out(shifted, vocabulary.pad),
            decoder_labels=target.lay_out(labels, IGNORE),
            decoder_segment_ids=target.lay_out(rows.segment_ids.take(target.places), -1),
            decoder_position_ids=target.lay_out(positions, 0),
            example_ids=rows.example_ids,
        )


class _Side:
    """One part of all pairs, moved to separate rows.

    Args:
        rows: of pairs.
        chosen: (N,) True at the tokens of this part.
        width: of the new rows.

    Attributes:
        places: (M,) the chosen flat positions in `rows`, row by row.
    """

    def __init__(self, rows: Rows, chosen: NDArray[np.bool_], width: int) -> None:
        self.places: I64 = np.flatnonzero(chosen)
        counts = np.count_nonzero(rows.matrix(chosen), axis=1)
        self._shape = (len(rows), width)
        self._filled: I64 = np.flatnonzero(np.arange(width) < counts[:, None])

    def lay_out(self, values: I32, rest: int) -> I32:
        """Returns (B, width) the values (M,) at the start of each row, `rest` after them."""
        out = np.full(self._shape, rest, dtype=np.int32)
        out.reshape(-1)[self._filled] = values
        return out


def _prefix(rows: Rows) -> Batch:
    """Returns (B, W) rows of pairs with bidirectional sources, a target token predicted at the one before it."""
    tokens, segments, types = (rows.matrix(a) for a in (rows.tokens, rows.segment_ids, _types(rows)))
    labels = np.full(tokens.shape, IGNORE, dtype=np.int32)
    np.copyto(labels[:, :-1], tokens[:, 1:], where=types[:, 1:] == 1)
    flat = types.reshape(-1)
    text = np.flatnonzero(rows.segment_ids >= 0)
    opens = np.flatnonzero(flat[1:] > flat[:-1]) + 1  # the first token of each target, in order of the pairs
    begins = np.flatnonzero(rows.position_ids.take(text) == 0)
    prefix = np.zeros(len(flat), dtype=np.int32)
    prefix[text] = np.repeat(rows.position_ids.take(opens), np.diff(begins, append=len(text)))
    return Batch(
        input_ids=tokens.copy(),
        labels=labels,
        segment_ids=segments.copy(),
        position_ids=rows.matrix(rows.position_ids).copy(),
        prefix=prefix.reshape(tokens.shape),
        attention="prefix",
        example_ids=rows.example_ids,
    )


def _types(rows: Rows) -> I32:
    assert rows.token_type_ids is not None, "rows of pairs say which part a token belongs to"
    return rows.token_type_ids
