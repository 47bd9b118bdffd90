"""A batch made ready for the model: tensors on the device, visibility and angles worked out once for all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretextlm.batch import IGNORE, Batch
from pretextlm.model.attention import Sight, cross_sight, self_sight
from pretextlm.model.config import ModelConfig
from pretextlm.model.rotary import Angles, angles


@dataclass(frozen=True)
class Inputs:
    """What the trunk reads. N labelled positions are given by index, so that logits are computed only there.

    Attributes:
        input_ids: (B, T) int.
        sight, angles: visibility and rotary angles of `input_ids`.
        labels_N: (N,) int64 targets in row order.
        label_index: (N,) int64 flat positions of the targets; None when every position has one.
        decoder_*, cross_sight: of an encoder-decoder's second row; None elsewhere.
        token_type_ids: (B, T) int, where the rows have two parts.
        dtype: type of the activations.
    """

    input_ids: Tensor
    sight: Sight
    angles: Angles
    labels_N: Tensor
    label_index: Tensor | None
    dtype: torch.dtype
    decoder_input_ids: Tensor | None = None
    decoder_sight: Sight | None = None
    decoder_angles: Angles | None = None
    cross_sight: Sight | None = None
    token_type_ids: Tensor | None = None


def prepare(batch: Batch, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Move a numpy batch to the device. Label positions are found on the host, so the device is never waited for."""
    index, labels = _labelled(batch.targets)
    tensors = batch.map(lambda array: _tensor(array).to(device, non_blocking=True))
    shape = _shape(batch.input_ids)
    common: dict[str, Any] = {
        "input_ids": tensors.input_ids,
        "sight": self_sight(
            tensors.segment_ids,
            tensors.position_ids,
            tensors.prefix,
            batch.attention,
            shape,
            device,
            dtype,
            ranks_BT=tensors.rank,
            reach_BT=tensors.reach,
        ),
        "angles": _angles(tensors.position_ids, shape, config, device, dtype),
        "labels_N": torch.from_numpy(labels).to(device, non_blocking=True),
        "label_index": None if index is None else torch.from_numpy(index).to(device, non_blocking=True),
        "dtype": dtype,
        "token_type_ids": tensors.token_type_ids,
    }
    if batch.decoder_input_ids is None:
        return Inputs(**common)
    target_shape = _shape(batch.decoder_input_ids)
    return Inputs(
        **common,
        decoder_input_ids=tensors.decoder_input_ids,
        decoder_sight=self_sight(
            tensors.decoder_segment_ids, tensors.decoder_position_ids, None, "causal", target_shape, device, dtype
        ),
        decoder_angles=_angles(tensors.decoder_position_ids, target_shape, config, device, dtype),
        cross_sight=cross_sight(tensors.decoder_segment_ids, tensors.segment_ids, target_shape, shape, device, dtype),
    )


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


def _angles(
    positions: Tensor | None, shape: tuple[int, int], config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> Angles:
    if positions is None:
        positions = torch.arange(shape[1], device=device)[None]
    return angles(positions, config.head_dim, config.rope_theta, dtype)
