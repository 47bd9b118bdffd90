"""A batch as the model reads it: tensors on the device, with masks and rotary angles computed once for all layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pretextlm.batch import IGNORE, Batch
from pretextlm.model.attention import AttentionMask, cross_attention_mask, self_attention_mask
from pretextlm.model.block_sparse_attention import BlockSparsity
from pretextlm.model.config import ModelConfig
from pretextlm.model.positions import BIAS_KINDS
from pretextlm.model.rotary import RotaryAngles, rotary_angles
from pretextlm.model.sentinel_states import match_sentinels


@dataclass(frozen=True)
class StackInputs:
    """The tokens that one stack of blocks reads.

    Attributes:
        input_ids: (B, T) int.
        position_ids: (B or 1, T) position of each token in its document.
        attention_masks: Mask under each window of the model's layers; the window 0 is the full document.
        angles: Rotary angles; None for a model of other positions.
        token_type_ids: (B, T) int, where the row has two parts.
        key_position_ids: (B, S) of all tokens read so far, where these are not the row's own.
        dropout_keys: (B, T) int64 key of each token's dropout; None without dropout.
    """

    input_ids: Tensor
    position_ids: Tensor
    attention_masks: Mapping[int, AttentionMask]
    angles: RotaryAngles | None
    token_type_ids: Tensor | None = None
    key_position_ids: Tensor | None = None
    dropout_keys: Tensor | None = None


@dataclass(frozen=True)
class ModelInputs:
    """The input of `Transformer.forward`. Labelled positions are given by index: logits are computed only there.

    Attributes:
        tokens: Input of the only stack, or of the encoder.
        labels_N: (N,) int64 targets in row order.
        label_indices: (N,) int64 flat positions of the targets; None when every position has one.
        dtype: Type of the activations.
        decoder_tokens: Input of the decoder in an encoder-decoder; else None.
        cross_attention_mask: Which of the encoder's positions the decoder's may attend to; else None.
        sentinel_match: (B, T, S) which of the encoder's positions holds the sentinel at each of the decoder's; None
            without `ModelConfig.sentinel_states`.
    """

    tokens: StackInputs
    labels_N: Tensor
    label_indices: Tensor | None
    dtype: torch.dtype
    decoder_tokens: StackInputs | None = None
    cross_attention_mask: AttentionMask | None = None
    sentinel_match: Tensor | None = None


def prepare(batch: Batch, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> ModelInputs:
    """Move a batch to the device and compute its masks and angles.

    Positions of labels are found on the host, so that the device need not be synchronized for their number.

    Args:
        batch: Arrays of numpy, or tensors.
        config: Shape of the model.
        device: Where the model is.
        dtype: Type of the activations.
    """
    index, labels = _labelled(batch.targets)
    if config.positions.kind in BIAS_KINDS:
        batch = _with_positions_of_columns(batch)
    on_device = batch.map(lambda array: _tensor(array).to(device, non_blocking=True))
    common: dict[str, Any] = {
        "tokens": _stack_inputs(on_device, config, device, dtype, batch.segment_ids, batch.position_ids),
        "labels_N": torch.from_numpy(labels).to(device, non_blocking=True),
        "label_indices": None if index is None else torch.from_numpy(index).to(device, non_blocking=True),
        "dtype": dtype,
    }
    if batch.decoder_input_ids is None:
        return ModelInputs(**common)
    decoder = Batch(
        input_ids=on_device.decoder_input_ids,
        segment_ids=on_device.decoder_segment_ids,
        position_ids=on_device.decoder_position_ids,
        attention="causal",
        dropout_keys=on_device.decoder_dropout_keys,
    )
    shapes = _shape(batch.decoder_input_ids), _shape(batch.input_ids)
    segments = on_device.decoder_segment_ids, on_device.segment_ids
    own, theirs = _array(batch.decoder_segment_ids), _array(batch.segment_ids)
    bounded = config.attention.softcap > 0
    cross = cross_attention_mask(*segments, *shapes, device, dtype, bounded, config.head_dim, (own, theirs))
    on_host = batch.decoder_segment_ids, batch.decoder_position_ids
    decoder_tokens = _stack_inputs(decoder, config, device, dtype, *on_host)
    match = None
    if config.sentinel_states:
        match = match_sentinels(decoder.input_ids, on_device.input_ids, config.sentinel_ids, *segments)
    return ModelInputs(**common, decoder_tokens=decoder_tokens, cross_attention_mask=cross, sentinel_match=match)


def _stack_inputs(
    batch: Batch, config: ModelConfig, device: torch.device, dtype: torch.dtype, host_segments: Any, host_positions: Any
) -> StackInputs:
    """The batch's `input_ids` as a stack reads them; its arrays are tensors already, of which two were these."""
    shape = _shape(batch.input_ids)
    positions = batch.position_ids
    if positions is None:
        positions = torch.arange(shape[1], device=device)[None]
    attention = config.attention
    sparsity = None
    if attention.block_size:
        sparsity = BlockSparsity(attention.block_size, attention.num_random_blocks, attention.sample_random_blocks)
    masks = {
        window: self_attention_mask(
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
            global_tokens=attention.global_tokens,
            always_in_blocks=attention.global_projections,
            needs_bias=config.positions.kind in BIAS_KINDS,
            has_softcap=attention.softcap > 0,
            sparsity=sparsity,
            head_dim=config.head_dim,
            host_segments=_array(host_segments),
            host_positions=_array(host_positions),
        )
        for window in set(attention.sliding_windows)
    }
    angles = rotary_angles(config, positions, dtype, batch.segment_ids)
    types = batch.token_type_ids if config.type_vocab_size > 1 else None  # with one type, all tokens have it
    return StackInputs(batch.input_ids, positions, masks, angles, types, dropout_keys=batch.dropout_keys)


def _with_positions_of_columns(batch: Batch) -> Batch:
    """Leaves out positions whose distances are those of columns, so that one bias of positions serves all rows.

    A bias depends on distances within a segment alone. Where positions count up in each segment, those of columns have
    the same distances: the bias is (1, H, T, T) instead of (B, H, T, T).
    """

    def counts_up(positions: Any, segments: Any) -> bool:
        if not isinstance(positions, np.ndarray) or not isinstance(segments, np.ndarray | None):
            return False
        fine = np.diff(positions, axis=1) == 1
        if segments is not None:
            fine |= (np.diff(segments, axis=1) != 0) | (segments[:, 1:] < 0)
        return bool(fine.all())

    changed: dict[str, Any] = {}
    for positions, segments in (("position_ids", "segment_ids"), ("decoder_position_ids", "decoder_segment_ids")):
        if counts_up(getattr(batch, positions), getattr(batch, segments)):
            changed[positions] = None
    return dataclasses.replace(batch, **changed) if changed else batch


def _tensor(array: Any) -> Tensor:
    """A tensor stays as it is: one model may have computed another's input."""
    return array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))


def _array(array: Any) -> Any:
    """An array of numpy, or None in place of a tensor."""
    return array if isinstance(array, np.ndarray) else None


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
