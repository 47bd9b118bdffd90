"""One model on rows with different attention: bidirectional, causal, after a prefix, right to left.

    tokens     <s> 7 8 9 4 5           predict="next" (GPT-BERT)    predict="here" (UniLM)
    masked     sees all tokens         <s> [M] 8 9 [M] 5            [CLS] 7 [M] 9 4 5
                                        7   -  - 4  -  -              -   - 8   - - -
    causal     sees those before       <s>  7  8 9  4  5            [CLS] 7 [M] 9 4 5
                                        7   8  9 4  5  …              -   - 8   - - -
    prefix     sees <s> 7 8 and        <s>  7  8 9  4  5            the same row, but seen so
               those before             -   -  9 4  5  …
    right_to_left  sees those after    <s>  7  8 9  4  5            the same row, but seen so
                                        -  <s> 7 8  9  4

In the first style every position predicts its neighbour, so that one model is a masked and a causal one: a masked row
is one of masked next-token prediction, and the other rows are plain text. In the second all rows hide tokens and
predict them in place, and only the attention differs.

Papers: GPT or BERT: why not both?, https://arxiv.org/abs/2410.24159 (masked : causal = 15 : 1 in its released code, a
rate that falls from 0.3 to 0.15). Unified Language Model Pre-training for Natural Language Understanding and
Generation, https://arxiv.org/abs/1905.03197 (masked, prefix, causal, right_to_left = 2 : 2 : 1 : 1; there one draw in
five hides two or three tokens, and token types indicate a row's attention: here both are left out).

The kinds share a batch, and the loss is the mean over all targets of the step. A causal row has a target at every
position, a masked one at one in seven; GPT-BERT's code takes a mean for each GPU, which has rows of one kind only, and
so gives a masked target several times the weight of a causal one. Raise `masked` for the same balance.

Requires [MASK], and <s> and </s> (next) or [CLS] and [SEP] (here). Suits a decoder, which can then generate; in the
second style an encoder is the same network. Masked, causal and prefix language modelling are its parts.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG, permute
from pretextlm.data.mixture import quotas
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.objectives.base import Role
from pretextlm.objectives.causal import CausalLayout
from pretextlm.objectives.masked import Masked, MaskedLayout
from pretextlm.objectives.protocol import Architecture, DecoderAttention
from pretextlm.scoring.blank_layout import BlankLayout

MASKED, CAUSAL, PREFIX, RIGHT_TO_LEFT = range(4)
"""Kinds of rows, in the order of their shares."""

MASKS, LENGTH = range(2)
"""Streams of random numbers: the masks, and the lengths of the documents' prefixes."""

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


class MixedVisibility(Masked):
    """Masked language modelling in which some rows have another attention and other targets.

    Of any block of rows (numbers k·Q … k·Q+Q-1 of the stream, where Q rows hold the shares exactly) each kind has its
    exact share; which row of the block is of which kind depends only on the rows' numbers. The further options are
    those of masked language modelling, for the masks of the masked rows, or with predict="here" of all rows.

    Args:
        predict: "next", every place its next token (right_to_left: the one before), or "here", hidden tokens in place.
        masked, causal, prefix, right_to_left: shares of the rows, relative to each other. A prefix row shows the
            first part of each document in both directions; its length is uniform from 1 to all but one token.

    Raises:
        UserError: no share above 0, or options that masked language modelling refuses (through `parse`).
    """

    name: ClassVar[str] = "mixed_visibility"
    title: ClassVar[str] = "Mixed visibility"
    paper: ClassVar[str] = "Charpentier & Samuel 2024, https://arxiv.org/abs/2410.24159"
    summary: ClassVar[str] = (
        "Some rows are read from both sides, with gaps to fill, and others from left to right, by the same weights."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("decoder", "encoder")
    roles: ClassVar[frozenset[Role]] = frozenset()

    predict: Literal["here", "next"] = Field(
        default="next", description="predict every next token (GPT-BERT), or hidden tokens in place (UniLM)"
    )
    masked: float = Field(default=15.0, ge=0, description="share of rows with bidirectional attention")
    causal: float = Field(default=1.0, ge=0, description="share of rows with causal attention")
    prefix: float = Field(default=0.0, ge=0, description="share of rows with a bidirectional prefix")
    right_to_left: float = Field(default=0.0, ge=0, description="share of rows read from right to left")

    @model_validator(mode="after")
    def _some_row(self) -> Self:
        if not sum(self._shares):
            raise ValueError("one of masked, causal, prefix and right_to_left must be above 0")
        return self

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.masked, self.causal, self.prefix, self.right_to_left

    def supported_architectures(self) -> tuple[Architecture, ...]:
        """Returns both: with the attention given by the rows, decoder and encoder are the same network."""
        return self.architectures

    @property
    def decoder_attention(self) -> DecoderAttention:
        """Causal, if some rows were read so and continued: it then writes text like any other decoder."""
        if self.predict == "next" and self.causal:
            return "causal"
        return "prefix" if self.predict == "next" and self.prefix else "bidirectional"

    def blank_layout(self, vocabulary: Vocabulary, architecture: Architecture) -> BlankLayout | None:
        """By [MASK], if rows seen from both sides are at least as many as those that continue; else by continuing."""
        forwards = self.causal + self.prefix if self.predict == "next" else 0.0
        frame = self.frame(vocabulary)
        if self.masked and self.masked >= forwards:
            return MaskedLayout(vocabulary, frame, self.predict == "next", continues=forwards > 0)
        return CausalLayout(vocabulary, frame) if forwards else None

    def frame(self, vocabulary: Vocabulary) -> Frame:
        """Returns the special tokens of causal language modelling if next tokens are predicted, else of masked."""
        if self.predict == "next":
            return Frame(begin=vocabulary.begin, end=vocabulary.eos)
        return super().frame(vocabulary)

    def variants(self, vocabulary: Vocabulary, length: int) -> list[Variant]:
        """Returns rows of `length`; to predict next tokens they read one more, which the next row reads again.

        Raises:
            UserError: the length is below 2, or there is no token to replace others by.
        """
        if self.predict == "here":
            return super().variants(vocabulary, length)
        if length < 2:
            raise UserError(f"Rows of {length} tokens have no token to hide.", "Give a length of at least 2.")
        self.check(vocabulary)
        return [Variant("main", raw=length + 1, length=length, overlap=1, restart=self.static_masks > 0)]

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns (B, T) inputs and labels of all kinds together."""
        kinds = kinds_of(rows.example_ids, self._shares)
        shown = rows if self.predict == "here" else _without_last(rows)
        batch = super().collate(shown, vocabulary, rng.fork(MASKS))
        prefix = np.zeros_like(batch.position_ids)
        prefix[kinds == MASKED] = shown.width
        after = np.flatnonzero(kinds == PREFIX)
        prefix[after] = prefix_lengths(batch.segment_ids[after], CounterRNG(rng.fork(LENGTH).keys[after]))
        if self.predict == "next":
            plain = kinds != MASKED
            batch.input_ids[plain] = shown.matrix(shown.tokens)[plain]
            batch.labels[plain] = _neighbours(rows, kinds, prefix)[plain]
        if not self.right_to_left:
            return dataclasses.replace(batch, attention="prefix", prefix=prefix)
        position = batch.position_ids
        backwards = (kinds == RIGHT_TO_LEFT)[:, None]
        # A position sees the ranks up to its reach. From left to right both are the position, and a prefix has rank -1,
        # which all reach; from right to left both are the negative position.
        rank = np.where(backwards, -position, np.where(position < prefix, np.int32(-1), position))
        return dataclasses.replace(
            batch, attention="ranked", rank=rank, reach=np.where(backwards, -position, position).astype(np.int32)
        )


def kinds_of(example_ids: I64, shares: tuple[float, ...]) -> I64:
    """Returns (B,) the kind of each row: exact quotas in every block of Q row numbers, in a random order per block."""
    rows = quotas(shares)
    slots = np.repeat(np.arange(len(rows)), rows)
    blocks, places = np.divmod(example_ids, len(slots))
    kinds: I64 = slots[permute(places, len(slots), blocks, 0)]
    return kinds


def prefix_lengths(segments: I32, rng: CounterRNG) -> I32:
    """Returns (B, T) the length of the prefix of each token's segment: uniform over 1 … its length - 1, at least 1.

    Each segment of the batch has a cell, `most` + 1 cells per row: rows [0 0 1] and [0 -1 -1] with most = 2 have the
    cells [0 0 1] and [3 5 5]; the last cell of a row counts its padding. A count of the cells gives the lengths.

    Args:
        segments: (B, T) counted from 0 in each row; padding (-1) has a prefix of 0.
        rng: one stream per row.
    """
    rows = len(segments)
    most = int(segments.max(initial=-1)) + 1
    cell = segments + (np.arange(rows) * (most + 1))[:, None]
    cell[segments < 0] += most + 1  # padding counts in the cell after the last segment's
    lengths = np.bincount(cell.reshape(-1), minlength=rows * (most + 1)).reshape(rows, most + 1)
    choices = np.maximum(lengths[:, :most] - 1, 1).astype(np.uint64)
    sizes = np.zeros((rows, most + 1), dtype=np.int32)
    sizes[:, :most] = 1 + ((rng.bits(0, most) >> np.uint64(32)) * choices >> np.uint64(32)).astype(np.int32)
    prefix: I32 = sizes.reshape(-1).take(cell)
    return prefix


def _neighbours(rows: Rows, kinds: I64, prefix: I32) -> I32:
    """Returns (B, T) labels of rows of plain text, from (B, T + 1) tokens: the next token of the same document.

    In a prefix row only from the prefix's last token on; in a right_to_left row the token before instead.
    """
    tokens, segments = rows.matrix(rows.tokens), rows.matrix(rows.segment_ids)
    here, following = segments[:, :-1], segments[:, 1:]
    labels = np.where((here == following) & (following >= 0), tokens[:, 1:], np.int32(IGNORE))
    positions = rows.matrix(rows.position_ids)[:, :-1]
    labels[(kinds == PREFIX)[:, None] & (positions < prefix - 1)] = IGNORE
    backwards = kinds == RIGHT_TO_LEFT
    labels[backwards, 0] = IGNORE
    labels[backwards, 1:] = np.where(positions[backwards, 1:] > 0, tokens[backwards, :-2], np.int32(IGNORE))
    return labels


def _without_last(rows: Rows) -> Rows:
    """Returns the rows without their last token."""
    width = rows.width - 1

    def cut(flat: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(rows.matrix(flat)[:, :-1]).reshape(-1)

    return dataclasses.replace(
        rows,
        tokens=cut(rows.tokens),
        offsets=np.arange(len(rows) + 1) * width,
        segment_ids=cut(rows.segment_ids),
        position_ids=cut(rows.position_ids),
        word_starts=cut(rows.word_starts),
        token_type_ids=None,
        sentence_starts=None,
    )
