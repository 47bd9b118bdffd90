"""The data that objectives, model and trainer exchange: Rows in, a Batch to the model, Terms of the loss back.

Axis letters: B rows, T positions of a row, S positions of a decoder row, N all tokens of all rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.attention_mask import AttentionKind

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""Label of a position without a loss, torch's default ignore_index."""


@dataclass(frozen=True)
class Rows:
    """Rows as a reader yields them: flat token arrays with boundaries, all rows of one variant.

    Attributes:
        tokens: (N,) int32 token ids of all rows, one after another.
        offsets: (B+1,) int64; row b is tokens[offsets[b]:offsets[b+1]].
        segment_ids: (N,) int32 document of each token, counted from 0 inside its row.
        position_ids: (N,) int32 position of each token inside its segment of the row.
        word_starts: (N,) bool, True where a word begins (a special token begins one of its own).
        example_ids: (B,) int64 number of each row: with seed and epoch, all that its random numbers depend on.
        token_type_ids: (N,) int32 which part of its row a token belongs to, 0 or 1, where rows have two.
        row_labels: (B,) int32 label of each row, known to the reader (how sentence B relates to A); of labelled
            examples (B,) or (B, K), also float32.
        token_labels: (N,) int32 label of each token, IGNORE where there is none; None for plain text.
        sentence_starts: (N,) bool, True where a sentence begins; only for a frame that requests it.
        variant: Index of the objective's variant whose shape these rows have.
        progress: (B,) float64 share of training done when each row is read, for noise that follows a schedule; None
            outside of training, which counts as its end.
    """

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    segment_ids: NDArray[np.int32]
    position_ids: NDArray[np.int32]
    word_starts: NDArray[np.bool_]
    example_ids: NDArray[np.int64]
    token_type_ids: NDArray[np.int32] | None = None
    row_labels: NDArray[Any] | None = None
    token_labels: NDArray[np.int32] | None = None
    sentence_starts: NDArray[np.bool_] | None = None
    variant: int = 0
    progress: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def width(self) -> int:
        """The common length of all rows.

        Raises:
            AssertionError: Rows of different lengths; rows of a stream never are.
        """
        lengths = np.diff(self.offsets)
        assert len(lengths), "no rows"
        assert (lengths == lengths[0]).all(), "rows of a stream have one width"
        return int(lengths[0])

    def matrix(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Returns a (B, width) view of one of the flat arrays."""
        return flat.reshape(len(self), self.width)


@dataclass(frozen=True)
class Batch:
    """The input of a model and its labels. Arrays are numpy from the objective, torch in the trainer (see `map`).

    Labels are aligned: labels[b, t] is the target of position t, and no loss ever shifts them.

    Attributes:
        input_ids: (B, T) int32.
        labels: (B, T) int32, IGNORE where there is no loss; None when the loss is the decoder's.
        segment_ids: (B, T) int32, -1 for padding; None when every row is one segment.
        position_ids: (B, T) int32 position inside the segment; None for 0 … T-1.
        prefix: (B, T) int32 length of the bidirectional part of the token's segment; None unless attention is "prefix".
        attention: Kind of attention mask that all rows share (attention_mask.py).
        token_type_ids: (B, T) int32 sentence A or B; None when there is one type.
        row_labels: (B,) int32 label of each row; None when there is none. Where rows hold several labelled examples,
            one for each example, (E,) or (E, K), in the order in which they lie in the batch.
        decoder_input_ids: (B, S) int32 of an encoder-decoder, whose decoder is always causal.
        decoder_labels: (B, S) int32 of an encoder-decoder.
        decoder_segment_ids: (B, S) int32; cross-attention stays within the segment.
        decoder_position_ids: (B, S) int32.
        shuffled_labels: (B, T) int32 further targets of the language-model head, counted apart from `labels`.
        left: (B, T) int32 for a token inside a masked span, column of the visible token just before it; IGNORE for any
            other token.
        right: (B, T) int32 likewise, just after it.
        rank: (B, T) int32 when attention is "ranked": see `may_attend`.
        reach: (B, T) int32 when attention is "ranked".
        draws: (B, T) int32 uniform in 0 … 2³¹-1, for objectives that sample from a model's outputs.
        example_ids: (B,) int64 from the rows.
        dropout_keys: (B, T) int64 key of each token's dropout (data/dropout_keys.py); None without dropout.
        decoder_dropout_keys: (B, S) int64 likewise.
    """

    input_ids: Any
    labels: Any = None
    segment_ids: Any = None
    position_ids: Any = None
    prefix: Any = None
    attention: AttentionKind = "bidirectional"
    token_type_ids: Any = None
    row_labels: Any = None
    decoder_input_ids: Any = None
    decoder_labels: Any = None
    decoder_segment_ids: Any = None
    decoder_position_ids: Any = None
    shuffled_labels: Any = None
    left: Any = None
    right: Any = None
    rank: Any = None
    reach: Any = None
    draws: Any = None
    example_ids: Any = None
    dropout_keys: Any = None
    decoder_dropout_keys: Any = None

    def map(self, function: Callable[[Any], Any]) -> Batch:
        """Apply a function to every array.

        Returns:
            The batch of the results.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Batch(**{k: v if v is None or k == "attention" else function(v) for k, v in values.items()})

    @property
    def targets(self) -> Any:
        """The labels of the language-model head: the decoder's where there is one."""
        return self.labels if self.decoder_labels is None else self.decoder_labels


@dataclass(frozen=True)
class Spare(Batch):
    """A batch that only lets all processes make equally many passes; it counts for nothing."""


@dataclass(frozen=True)
class Term:
    """One term of a loss, as sums: only the trainer divides, by the count over the global step.

    A batch with no target is (0, 0), never NaN.

    Attributes:
        total: Scalar tensor, the summed loss.
        count: Number of targets summed; known from the batch alone (`Objective.counts`).
        coefficient: Weight of total / count in the loss of the step.
        correct: Scalar tensor, number of targets that were predicted correctly, for terms that report an accuracy.
    """

    total: Tensor
    count: int
    coefficient: float = 1.0
    correct: Tensor | None = None
