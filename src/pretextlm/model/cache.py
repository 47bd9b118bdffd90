"""Keys and values of the tokens already read, so that each new token costs one position, not the whole text.

Axis letters: B rows, T positions, K key-value heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """One attention's keys and values, in buffers that grow by doubling. Grouped-query aware: only K heads are kept."""

    def __init__(self) -> None:
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def extend(self, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Append new positions; returns all keys and values so far, (B, length, K, E) each."""
        end = self.length + k_BTKE.size(1)
        self._keys = self._grown(self._keys, k_BTKE, end)
        self._values = self._grown(self._values, v_BTKE, end)
        self._keys[:, self.length : end] = k_BTKE
        self._values[:, self.length : end] = v_BTKE
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values so far, (B, length, K, E) each."""
        assert self._keys is not None, "nothing was written yet"
        assert self._values is not None, "nothing was written yet"
        return self._keys[:, : self.length], self._values[:, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Keep (or repeat) the given rows, for batches that shrink as answers end and for beams."""
        if self._keys is not None and self._values is not None:
            self._keys, self._values = self._keys[rows], self._values[rows]

    def drop_last(self) -> None:
        """Forget the last position of every row."""
        self.length -= 1

    def _grown(self, buffer: Tensor | None, like_BTKE: Tensor, end: int) -> Tensor:
        if buffer is not None and buffer.size(1) >= end:
            return buffer
        rows, _, heads, width = like_BTKE.shape
        grown = torch.empty(rows, max(64, 2 * end), heads, width, dtype=like_BTKE.dtype, device=like_BTKE.device)
        if buffer is not None:
            grown[:, : self.length] = buffer[:, : self.length]
        return grown


def new_cache(layers: int) -> list[tuple[LayerCache, LayerCache]]:
    """An empty (self-attention, cross-attention) pair for every block."""
    return [(LayerCache(), LayerCache()) for _ in range(layers)]
