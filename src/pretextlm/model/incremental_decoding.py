"""A decoder that reads a text piece by piece: the part already read stays in the cache.

Rows of different length stand side by side, padded at the left. Padding is a segment of its own (-1), so that by the
one visibility rule no token sees it, and positions count real tokens alone: a row is read as if it were by itself.
While no row has padding, all rows stand alike, and visibility
need not be written out: a new token sees everything, or the last tokens of a window.

Axis letters: B rows, T new positions, S positions read so far, M positions of the encoder's row, D hidden_size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.attention_mask import Attention
from pretextlm.batch import Batch
from pretextlm.model.attention import Sight, cached_sight, cross_sight
from pretextlm.model.kv_cache import new_cache
from pretextlm.model.model_inputs import Inputs, Row, prepare
from pretextlm.model.positions import BIASED
from pretextlm.model.rotary import angles_of
from pretextlm.model.transformer import Transformer


class Incremental:
    """The state of a decoder that has read some tokens of each row.

    Args:
        model: decoder or encoder-decoder, in eval mode.
        sources: one list of ids a row, each seen in both directions: what the encoder reads, or the prefix of a
            decoder alone; None for a text that is read from left to right only.
        pad: id that fills rows up; never seen by another token.
        dtype: type of the activations.
        reread: the last token of each source comes again as the first of what is read next, as a decoder needs it
            that goes on from a source by that token's hidden state; no source is then empty.
        starts: position of the first token that is read of each row, where it is not 0 (of an encoder-decoder).
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
        self._cache = new_cache(model.config.layers("decoder"))
        self._starts_B1 = None if starts is None else torch.tensor(starts, device=self.device)[:, None]
        self._even = True
        self._segments_BS: Tensor | None = None
        self._positions_BS: Tensor | None = None
        self._memory_BMD: Tensor | None = None
        self._memory_segments_BM: Tensor | None = None
        self._across: Sight | None = None
        if sources is not None:
            ids, segments, positions = self._on_device(*pad_left(sources, pad))
            even = _alike(sources)
            if model.encoder is None:
                self._read(ids, segments, "bidirectional", even)
                if reread:
                    self._drop_last()
            else:
                self._memory_BMD = encode(model, ids, segments, positions, dtype)
                self._memory_segments_BM = segments
                self._across = Sight() if even else None

    def extend(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Read a piece more of each row, ragged or empty; returns its hidden states (B, T, D), padded at the left."""
        ids, segments, _ = self._on_device(*pad_left(pieces, self.pad))
        return self._read(ids, segments, "causal", _alike(pieces))

    def extend_padded(self, ids_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """The same for ids (B, T) with segments 0, or -1 where they are padding; without segments there is none."""
        if segments_BT is None:
            return self._read(ids_BT, torch.zeros_like(ids_BT), "causal", even=True)
        return self._read(ids_BT, segments_BT, "causal", even=False)

    def keep(self, rows: Tensor, same_sources: bool = False) -> None:
        """Go on with the given rows (R,) only; a row named several times is repeated.

        Args:
            same_sources: each row's source is that of the row in its place before, as when beams of one text change.
        """
        for own, cross in self._cache:
            own.keep(rows)
            if not same_sources:
                cross.keep(rows)
        if self._segments_BS is not None and self._positions_BS is not None:
            self._segments_BS, self._positions_BS = self._segments_BS[rows], self._positions_BS[rows]
        if self._starts_B1 is not None:
            self._starts_B1 = self._starts_B1[rows]
        if self._memory_BMD is not None and self._memory_segments_BM is not None and not same_sources:
            self._memory_BMD = self._memory_BMD[rows]
            self._memory_segments_BM = self._memory_segments_BM[rows]

    def _drop_last(self) -> None:
        """Forget the last token of each row, but not what the others saw of it."""
        assert self._segments_BS is not None, "something has been read"
        assert self._positions_BS is not None, "something has been read"
        self._segments_BS, self._positions_BS = self._segments_BS[:, :-1], self._positions_BS[:, :-1]
        for own, _ in self._cache:
            own.drop_last()

    def _read(self, ids_BT: Tensor, segments_BT: Tensor, attention: Attention, even: bool) -> Tensor:
        """Read more, of each row equally much and without padding where it is even."""
        self._even = self._even and even
        positions_BT = self._next_positions(segments_BT)
        self._segments_BS = _joined(self._segments_BS, segments_BT)
        self._positions_BS = _joined(self._positions_BS, positions_BT)
        sights = {
            window: self._sight(segments_BT, positions_BT, attention, window)
            for window in set(self.model.config.attention.windows)
        }
        at = angles_of(self.model.config, positions_BT, self.dtype)
        row = Row(ids_BT, positions_BT, sights, at, key_positions=self._positions_BS)
        return self.model.decode(self._inputs(row, segments_BT), self._memory_BMD, self._cache)

    def _sight(self, segments_BT: Tensor, positions_BT: Tensor, attention: Attention, window: int) -> Sight:
        """What the new tokens see under a window."""
        assert self._segments_BS is not None, "something has been read"
        assert self._positions_BS is not None, "something has been read"
        config = self.model.config
        free = self._even and config.positions.kind not in BIASED and not config.attention.global_tokens
        if free and positions_BT.size(1) == 1 and attention == "causal":
            return Sight(last=window)
        first = self._segments_BS.size(1) == positions_BT.size(1)
        if free and first and not window and not config.attention.softcap:
            return Sight(causal=attention == "causal")
        everything = (segments_BT, self._segments_BS, positions_BT, self._positions_BS, attention, self.dtype)
        return cached_sight(*everything, window, config.attention.global_tokens)

    def _next_positions(self, segments_BT: Tensor) -> Tensor:
        """Positions of new tokens: the number of real tokens before each, counted from where the row starts."""
        if self._even:
            read = 0 if self._segments_BS is None else self._segments_BS.size(1)
            positions_BT = torch.arange(read, read + segments_BT.size(1), device=self.device).expand_as(segments_BT)
        else:
            real = segments_BT >= 0
            before = 0 if self._segments_BS is None else (self._segments_BS >= 0).sum(dim=1, keepdim=True)
            positions_BT = (before + real.cumsum(dim=1) - 1).clamp(min=0)  # padding at a row's beginning has none
        return positions_BT if self._starts_B1 is None else positions_BT + self._starts_B1

    def _inputs(self, row: Row, segments_BT: Tensor) -> Inputs:
        none = torch.zeros(0, dtype=torch.int64, device=self.device)
        if self._memory_segments_BM is None:
            return Inputs(row, none, none, self.dtype)
        if self._across is not None:
            return Inputs(row, none, none, self.dtype, row, self._across)
        every = torch.zeros_like(segments_BT)  # padding looks somewhere too: a query that sees nothing is NaN
        rows, width = row.ids.shape
        shapes = (rows, width), (rows, self._memory_segments_BM.size(1))
        capped = self.model.config.attention.softcap > 0
        across = cross_sight(every, self._memory_segments_BM, *shapes, self.device, self.dtype, capped)
        return Inputs(row, none, none, self.dtype, row, across)

    def _on_device(self, *arrays: NDArray[np.int64]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(array).to(self.device) for array in arrays)


def encode(model: Transformer, ids_BT: Tensor, segments_BT: Tensor, positions_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """The encoder's output (B, T, D) for rows that each hold one segment and padding."""
    batch = Batch(
        input_ids=ids_BT.cpu().numpy(), segment_ids=segments_BT.cpu().numpy(), position_ids=positions_BT.cpu().numpy()
    )
    return model.encode(prepare(batch, model.config, ids_BT.device, dtype))


def pad_left(rows: Sequence[Sequence[int]], pad: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ragged rows as ids, segments and positions, (B, T) each: T is the longest row's length, padding stands first."""
    lengths = np.array([len(row) for row in rows], np.int64)
    width = int(lengths.max(initial=0))
    real = np.arange(width) >= width - lengths[:, None]
    ids = np.full(real.shape, pad, np.int64)
    ids[real] = np.fromiter((token for row in rows for token in row), np.int64, int(lengths.sum()))
    positions = np.where(real, np.arange(width) - (width - lengths[:, None]), 0)
    return ids, np.where(real, 0, -1), positions


def _joined(before: Tensor | None, after: Tensor) -> Tensor:
    return after if before is None else torch.cat([before, after], dim=1)


def _alike(rows: Sequence[Sequence[int]]) -> bool:
    """Whether all are of one length."""
    return len({len(row) for row in rows}) <= 1
