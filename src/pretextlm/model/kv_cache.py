"""Keys and values of the tokens already read, so that each new token costs one position, not the whole text.

Axis letters: B rows, T positions, K key-value heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor


class LayerCache:
    """One attention's keys and values, in buffers that grow by doubling. Grouped-query aware: only K heads are kept.

    A head's positions lie one after the other, as the products with them read them.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys_BKTE: Tensor | None = None
        self._values_BKTE: Tensor | None = None

    def extend(self, k_BTKE: Tensor, v_BTKE: Tensor) -> tuple[Tensor, Tensor]:
        """Append new positions; returns all keys and values so far, (B, length, K, E) each."""
        start, end = self.length, self.length + k_BTKE.size(1)
        if self._keys_BKTE is None or self._values_BKTE is None or self._keys_BKTE.size(2) < end:
            self._keys_BKTE = self._grown(self._keys_BKTE, k_BTKE, end)
            self._values_BKTE = self._grown(self._values_BKTE, v_BTKE, end)
        self._keys_BKTE[:, :, start:end] = k_BTKE.transpose(1, 2)
        self._values_BKTE[:, :, start:end] = v_BTKE.transpose(1, 2)
        self.length = end
        return self.read()

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values so far, (B, length, K, E) each."""
        assert self._keys_BKTE is not None, "nothing was written yet"
        assert self._values_BKTE is not None, "nothing was written yet"
        end = self.length
        return self._keys_BKTE[:, :, :end].transpose(1, 2), self._values_BKTE[:, :, :end].transpose(1, 2)

    def keep(self, rows: Tensor) -> None:
        """Keep (or repeat) the given rows, for batches that shrink as answers end and for beams."""
        if self._keys_BKTE is not None and self._values_BKTE is not None:
            self._keys_BKTE = self._chosen(self._keys_BKTE, rows)
            self._values_BKTE = self._chosen(self._values_BKTE, rows)

    def drop_last(self) -> None:
        """Forget the last position of every row."""
        self.length -= 1

    def _chosen(self, buffer_BKTE: Tensor, rows: Tensor) -> Tensor:
        chosen = buffer_BKTE.new_empty(len(rows), *buffer_BKTE.shape[1:])
        chosen[:, :, : self.length] = buffer_BKTE[:, :, : self.length].index_select(0, rows)
        return chosen

    def _grown(self, buffer: Tensor | None, like_BTKE: Tensor, end: int) -> Tensor:
        rows, _, heads, width = like_BTKE.shape
        grown = torch.empty(rows, heads, max(64, 2 * end), width, dtype=like_BTKE.dtype, device=like_BTKE.device)
        if buffer is not None:
            grown[:, :, : self.length] = buffer[:, :, : self.length]
        return grown


def new_cache(layers: int) -> list[tuple[LayerCache, LayerCache]]:
    """An empty (self-attention, cross-attention) pair for every block."""
    return [(LayerCache(), LayerCache()) for _ in range(layers)]
