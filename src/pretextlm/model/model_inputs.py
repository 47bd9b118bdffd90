"""A batch made ready for the model: tensors on the device, visibility and angles worked out once for all layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretextlm.batch import IGNORE, Batch
from pretextlm.model.attention import Sight, cross_sight, self_sight
from pretextlm.model.block_sparse_attention import Sparsity
from pretextlm.model.config import ModelConfig
from pretextlm.model.positions import BIASED
from pretextlm.model.rotary import Angles, angles_of


@dataclass(frozen=True)
class Row:
    """One row of tokens of each example, as a stack of blocks reads it.

    Attributes:
        ids: (B, T) int.
        positions: (B or 1, T) position of each token in its document.
        sights: visibility under each window of the model's layers; 0 is the whole document.
        angles: rotary angles, None for a model of other positions.
        types: (B, T) int, where the row has two parts.
        key_positions: (B, S) of all tokens read so far, where these are not the row's own.
        noise: (B, T) int64 key of each token, where numbers are dropped (dropout.py).
    """

    ids: Tensor
    positions: Tensor
    sights: Mapping[int, Sight]
    angles: Angles | None
    types: Tensor | None = None
    key_positions: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class Inputs:
    """What the trunk reads. N labelled positions are given by index, so that logits are computed only there.

    Attributes:
        row: the only row of tokens, or the encoder's.
        labels_N: (N,) int64 targets in row order.
        label_index: (N,) int64 flat positions of the targets; None when every position has one.
        dtype: type of the activations.
        decoder_row, cross_sight: an encoder-decoder's second row, and what it sees of the first; None elsewhere.
    """

    row: Row
    labels_N: Tensor
    label_index: Tensor | None
    dtype: torch.dtype
    decoder_row: Row | None = None
    cross_sight: Sight | None = None


def prepare(batch: Batch, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Move a numpy batch to the device. Label positions are found on the host, so the device is never waited for."""
    index, labels = _labelled(batch.targets)
    on_device = batch.map(lambda array: _tensor(array).to(device, non_blocking=True))
    common: dict[str, Any] = {
        "row": _row(on_device, config, device, dtype),
        "labels_N": torch.from_numpy(labels).to(device, non_blocking=True),
        "label_index": None if index is None else torch.from_numpy(index).to(device, non_blocking=True),
        "dtype": dtype,
    }
    if batch.decoder_input_ids is None:
        return Inputs(**common)
    second = Batch(
        input_ids=on_device.decoder_input_ids,
        segment_ids=on_device.decoder_segment_ids,
        position_ids=on_device.decoder_position_ids,
        attention="causal",
        noise=on_device.decoder_noise,
    )
    shapes = _shape(batch.decoder_input_ids), _shape(batch.input_ids)
    capped = config.attention.softcap > 0
    across = cross_sight(on_device.decoder_segment_ids, on_device.segment_ids, *shapes, device, dtype, capped)
    return Inputs(**common, decoder_row=_row(second, config, device, dtype), cross_sight=across)


def _row(batch: Batch, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Row:
    """The batch's first row; its arrays are tensors already."""
    shape = _shape(batch.input_ids)
    positions = batch.position_ids
    if positions is None:
        positions = torch.arange(shape[1], device=device)[None]
    parts = config.attention
    sparsity = Sparsity(parts.block_size, parts.random_blocks, parts.draw_blocks) if parts.block_size else None
    sights = {
        window: self_sight(
            batch.segment_ids,
            batch.position_ids,
            batch.prefix,
            batch.attention,
            shape,
            device,
            dtype,
            ranks_BT=batch.rank,
            reach_BT=batch.reach,
            window=window,
            global_tokens=parts.global_tokens,
            always_in_blocks=parts.global_projections,
            written_out=config.positions.kind in BIASED,
            capped=parts.softcap > 0,
            sparsity=sparsity,
        )
        for window in set(parts.windows)
    }
    at = angles_of(config, positions, dtype, batch.segment_ids)
    types = batch.token_type_ids if config.type_vocab_size > 1 else None  # of one type, all tokens are of it
    return Row(batch.input_ids, positions, sights, at, types, noise=batch.noise)


def _tensor(array: Any) -> Tensor:
    """A tensor is there already where one model made another's input."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))


def _shape(array: Any) -> tuple[int, int]:
    rows, width = array.shape
    return int(rows), int(width)


def _labelled(targets: Any) -> tuple[Any, Any]:
    """(flat positions of the labels, or None when all are labelled; their labels as int64)."""
    if targets is None:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    flat = targets.reshape(-1)
    index = np.flatnonzero(flat != IGNORE)
    if len(index) == len(flat):
        return None, flat.astype(np.int64)
    return index, flat[index].astype(np.int64)
