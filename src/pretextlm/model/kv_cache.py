"""The key-value cache: keys and values of the tokens already read, so that each new token costs one position.

Axis letters: B rows, T positions, K key-value heads, E head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor


class KVCache:
    """Keys and values of one attention. With grouped-query attention only K heads are kept.

    Buffers are (B, K, capacity, E), heads before positions, because the attention's matrix products read one head's
    positions one after the other. When a buffer is full it is replaced by one of twice the needed capacity, so that n
    tokens are copied O(n) times in all, not O(n²).

    Attributes:
        length: Number of positions written.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys_BKTE: Tensor | None = None
        self._values_BKTE: Tensor | None = None

    def update(self, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Append new positions.

        Args:
            k_BTKE: Keys of the new positions.
            v_BTKE: Values of the new positions.

        Returns:
            All keys and all values so far, (B, length, K, E) each.
        """
        start, end = self.length, self.length + k_BTKE.size(1)
        if self._keys_BKTE is None or self._values_BKTE is None or self._keys_BKTE.size(2) < end:
            self._keys_BKTE = self._grow(self._keys_BKTE, k_BTKE, end)
            self._values_BKTE = self._grow(self._values_BKTE, v_BTKE, end)
        self._keys_BKTE[:, :, start:end] = k_BTKE.transpose(1, 2)
        self._values_BKTE[:, :, start:end] = v_BTKE.transpose(1, 2)
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Returns all keys and all values so far, (B, length, K, E) each: views of the buffers."""
        assert self._keys_BKTE is not None, "nothing was written yet"
        assert self._values_BKTE is not None, "nothing was written yet"
        end = self.length
        return self._keys_BKTE[:, :, :end].transpose(1, 2), self._values_BKTE[:, :, :end].transpose(1, 2)

    def select_rows(self, rows: Tensor) -> None:
        """Keep, reorder or repeat rows, for batches that shrink as texts end and for beams.

        Args:
            rows: Indices of the rows to go on with.
        """
        if self._keys_BKTE is not None and self._values_BKTE is not None:
            self._keys_BKTE = self._selected(self._keys_BKTE, rows)
            self._values_BKTE = self._selected(self._values_BKTE, rows)

    def drop_last(self) -> None:
        """Remove the last position of every row."""
        self.length -= 1

    def _selected(self, buffer_BKTE: Tensor, rows: Tensor) -> Tensor:
        selected = buffer_BKTE.new_empty(len(rows), *buffer_BKTE.shape[1:])
        selected[:, :, : self.length] = buffer_BKTE[:, :, : self.length].index_select(0, rows)
        return selected

    def _grow(self, buffer: Tensor | None, like_BTKE: Tensor, end: int) -> Tensor:
        rows, _, heads, width = like_BTKE.shape
        grown = torch.empty(rows, heads, max(64, 2 * end), width, dtype=like_BTKE.dtype, device=like_BTKE.device)
        if buffer is not None:
            grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown


def empty_cache(layers: int) -> list[tuple[KVCache, KVCache]]:
    """Returns an empty (self-attention, cross-attention) pair for every block."""
    return [(KVCache(), KVCache()) for _ in range(layers)]
