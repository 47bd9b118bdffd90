"""A decoder that reads a text piece by piece, with the keys and values of the tokens read in a cache.

Rows of different lengths share a batch, padded at the left. Padding is a segment of its own (-1), so that no token
attends to it, and positions count real tokens only: a row is read as if it were alone. Two rows, read in pieces of one
to three tokens (. is padding):

    segments    -1 -1  0 | 0  0        tokens  .  .  a | b  c        positions  0  0  0 | 1  2
                 0  0  0 |-1  0                d  e  f | .  g                   0  1  2 | 2  3

While no row has padding, all rows have the same positions and a mask need not be written out: a new token attends to
everything, or to the last tokens of a window.

Axis letters: B rows, T new positions, S positions read so far, M positions of the encoder's row, D hidden_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.attention_mask import AttentionKind
from pretextlm.batch import Batch
from pretextlm.model.attention import AttentionMask, cached_attention_mask, cross_attention_mask
from pretextlm.model.kv_cache import empty_cache
from pretextlm.model.model_inputs import ModelInputs, StackInputs, prepare
from pretextlm.model.positions import BIAS_KINDS
from pretextlm.model.rotary import rotary_angles
from pretextlm.model.sentinel_states import match_sentinels
from pretextlm.model.transformer import Transformer


class IncrementalDecoder:
    """The state of a decoder that has read some tokens of each row.

    Args:
        model: Decoder or encoder-decoder, in eval mode.
        sources: One list of ids per row that is read bidirectionally: the encoder's input, or the prefix of a
            decoder-only model; None for a text that is read from left to right only.
        pad: Id that fills rows up; no other token attends to it.
        dtype: Type of the activations.
        reread: The last token of each source comes again as the first token of the next piece, for a decoder that
            continues a source from that token's hidden state; no source may then be empty.
        starts: Position of the first token of each row, where it is not 0 (in an encoder-decoder).
    """

    def __init__(
        self,
        model: Transformer,
        sources: Sequence[Sequence[int]] | None = None,
        pad: int = 0,
        dtype: torch.dtype = torch.float32,
        reread: bool = False,
        starts: Sequence[int] | None = None,
    ) -> None:
        assert sources is not None or model.encoder is None, "an encoder-decoder has sources"
        self.model, self.pad, self.dtype = model, pad, dtype
        self.device = model.embed_tokens.weight.device
        self._cache = empty_cache(model.config.layers("decoder"))
        self._starts_B1 = None if starts is None else torch.tensor(starts, device=self.device)[:, None]
        self._unpadded = True
        self._segments_BS: Tensor | None = None
        self._positions_BS: Tensor | None = None
        self._encoder_hidden_BMD: Tensor | None = None
        self._encoder_ids_BM: Tensor | None = None
        self._encoder_segments_BM: Tensor | None = None
        self._cross_mask: AttentionMask | None = None
        if sources is not None:
            ids, segments, positions = self._on_device(*pad_left(sources, pad))
            unpadded = _same_length(sources)
            if model.encoder is None:
                self._read(ids, segments, "bidirectional", unpadded)
                if reread:
                    self._drop_last()
            else:
                self._encoder_hidden_BMD = encode(model, ids, segments, positions, dtype)
                self._encoder_ids_BM, self._encoder_segments_BM = ids, segments
                self._cross_mask = AttentionMask() if unpadded else None

    def extend(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Read more tokens of each row.

        Args:
            pieces: Ids of each row, of any lengths.

        Returns:
            (B, T, D) hidden states, padded at the left; the last column holds each row's last token.
        """
        ids, segments, _ = self._on_device(*pad_left(pieces, self.pad))
        return self._read(ids, segments, "causal", _same_length(pieces))

    def extend_padded(self, ids_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Read more tokens of each row from a tensor.

        Args:
            ids_BT: Ids.
            segments_BT: 0, or -1 where there is padding; None for no padding.

        Returns:
            (B, T, D) hidden states.
        """
        if segments_BT is None:
            return self._read(ids_BT, torch.zeros_like(ids_BT), "causal", unpadded=True)
        return self._read(ids_BT, segments_BT, "causal", unpadded=False)

    def select_rows(self, rows: Tensor, same_sources: bool = False) -> None:
        """Keep, reorder or repeat rows.

        Args:
            rows: (R,) indices of the rows to go on with.
            same_sources: The source of each row is that of the row in its place before, as when beams of one text are
                reordered: the encoder's output then stays as it is.
        """
        for own, cross in self._cache:
            own.select_rows(rows)
            if not same_sources:
                cross.select_rows(rows)
        if self._segments_BS is not None and self._positions_BS is not None:
            self._segments_BS, self._positions_BS = self._segments_BS[rows], self._positions_BS[rows]
        if self._starts_B1 is not None:
            self._starts_B1 = self._starts_B1[rows]
        if same_sources or self._encoder_hidden_BMD is None:
            return
        assert self._encoder_ids_BM is not None, "what was encoded has ids"
        assert self._encoder_segments_BM is not None, "what was encoded has segments"
        self._encoder_hidden_BMD = self._encoder_hidden_BMD[rows]
        self._encoder_ids_BM, self._encoder_segments_BM = self._encoder_ids_BM[rows], self._encoder_segments_BM[rows]

    def _drop_last(self) -> None:
        """Remove the last token of each row; the hidden states of the others have attended to it already."""
        assert self._segments_BS is not None, "something has been read"
        assert self._positions_BS is not None, "something has been read"
        self._segments_BS, self._positions_BS = self._segments_BS[:, :-1], self._positions_BS[:, :-1]
        for own, _ in self._cache:
            own.drop_last()

    def _read(self, ids_BT: Tensor, segments_BT: Tensor, attention: AttentionKind, unpadded: bool) -> Tensor:
        """Read more; `unpadded` means the same number of tokens of every row, without padding."""
        self._unpadded = self._unpadded and unpadded
        positions_BT = self._next_positions(segments_BT)
        self._segments_BS = _concatenated(self._segments_BS, segments_BT)
        self._positions_BS = _concatenated(self._positions_BS, positions_BT)
        masks = {
            window: self._attention_mask(segments_BT, positions_BT, attention, window)
            for window in set(self.model.config.attention.sliding_windows)
        }
        angles = rotary_angles(self.model.config, positions_BT, self.dtype)
        tokens = StackInputs(ids_BT, positions_BT, masks, angles, key_position_ids=self._positions_BS)
        return self.model.decode(self._inputs(tokens, segments_BT), self._encoder_hidden_BMD, self._cache)

    def _attention_mask(
        self, segments_BT: Tensor, positions_BT: Tensor, attention: AttentionKind, window: int
    ) -> AttentionMask:
        """The mask of the new tokens under a window."""
        assert self._segments_BS is not None, "something has been read"
        assert self._positions_BS is not None, "something has been read"
        config = self.model.config
        implicit = self._unpadded and config.positions.kind not in BIAS_KINDS and not config.attention.global_tokens
        if implicit and positions_BT.size(1) == 1 and attention == "causal":
            return AttentionMask(last_keys=window)
        first = self._segments_BS.size(1) == positions_BT.size(1)
        if implicit and first and not window and not config.attention.softcap:
            return AttentionMask(causal=attention == "causal")
        segments_and_positions = segments_BT, self._segments_BS, positions_BT, self._positions_BS
        return cached_attention_mask(
            *segments_and_positions, attention, self.dtype, window, config.attention.global_tokens
        )

    def _next_positions(self, segments_BT: Tensor) -> Tensor:
        """Positions of new tokens: the number of real tokens before each, counted from where the row starts."""
        if self._unpadded:
            read = 0 if self._segments_BS is None else self._segments_BS.size(1)
            positions_BT = torch.arange(read, read + segments_BT.size(1), device=self.device).expand_as(segments_BT)
        else:
            real = segments_BT >= 0
            before = 0 if self._segments_BS is None else (self._segments_BS >= 0).sum(dim=1, keepdim=True)
            positions_BT = (before + real.cumsum(dim=1) - 1).clamp(min=0)  # padding at a row's start would be at -1
        return positions_BT if self._starts_B1 is None else positions_BT + self._starts_B1

    def _inputs(self, tokens: StackInputs, segments_BT: Tensor) -> ModelInputs:
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        if self._encoder_ids_BM is None or self._encoder_segments_BM is None:
            return ModelInputs(tokens, none, none, self.dtype)
        match, config = None, self.model.config
        if config.sentinel_states:
            match = match_sentinels(tokens.input_ids, self._encoder_ids_BM, config.sentinel_ids)
        if self._cross_mask is not None:
            return ModelInputs(tokens, none, none, self.dtype, tokens, self._cross_mask, match)
        segments_BT = torch.zeros_like(segments_BT)  # padding attends to the source too: a row of -inf alone gives NaN
        rows, width = tokens.input_ids.shape
        shapes = (rows, width), (rows, self._encoder_segments_BM.size(1))
        needs_bias = config.attention.softcap > 0
        mask = cross_attention_mask(
            segments_BT, self._encoder_segments_BM, *shapes, self.device, self.dtype, needs_bias
        )
        return ModelInputs(tokens, none, none, self.dtype, tokens, mask, match)

    def _on_device(self, *arrays: NDArray[np.int64]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(self.device) for array in arrays)


def encode(model: Transformer, ids_BT: Tensor, segments_BT: Tensor, positions_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Run the encoder on rows that each hold one segment and padding.

    Returns:
        (B, T, D) hidden states.
    """
    batch = Batch(
        input_ids=ids_BT.cpu().numpy(), segment_ids=segments_BT.cpu().numpy(), position_ids=positions_BT.cpu().numpy()
    )
    return model.encode(prepare(batch, model.config, ids_BT.device, dtype))


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pad rows of ids at the left: [[5], [6, 7, 8]] → ids [[pad, pad, 5], [6, 7, 8]].

    Returns:
        Ids, segments (0, or -1 for padding) and positions, (B, T) each, where T is the longest row's length.
    """
    lengths = np.array([len(row) for row in rows], np.int64)
    width = int(lengths.max(initial=0))
    real = np.arange(width) >= width - lengths[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
    positions = np.where(real, np.arange(width) - (width - lengths[:, None]), 0)
    return ids, np.where(real, 0, -1), positions


def _concatenated(before: Tensor | None, after: Tensor) -> Tensor:
    return after if before is None else torch.cat([before, after], dim=1)


def _same_length(rows: Sequence[Sequence[int]]) -> bool:
    return len({len(row) for row in rows}) <= 1
