"""Memory of a training step: exact for weights, gradients and optimizer state, estimated for activations.

Weights and gradients are fp32. AdamW keeps two moments of each weight, Muon one for each weight of the blocks' matrices
(and AdamW's two for all others). The activations that autograd saves are summed from the shapes of the modules;
attention saves its inputs and its output but not its scores, like fused kernels. A block with gradient checkpointing
saves its input alone. The logits never exist all at once.

Letters: D hidden_size, F intermediate_size, H heads, K key-value heads, E head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pretextlm.model.blocks import Block
from pretextlm.model.config import ModelConfig
from pretextlm.model.sliding_window_attention import cheaper_in_blocks
from pretextlm.model.transformer import Transformer
from pretextlm.training.optimizers import parameter_groups

if TYPE_CHECKING:
    from pretextlm.training.parallel import ParallelMode

FORMULA = (
    "per token and layer D + 2·H·E + 2·K·E of attention and D + 2·F of feed-forward (4·F where gated) in the "
    "activations' type, H·E + K·E more with rotary positions and with a QK norm, and 2·D of norms' inputs in "
    "fp32; the decoder of an encoder-decoder has a second attention; learned relative positions keep H scores "
    "per pair of tokens; with bf16, a copy of the blocks' matrices"
)
"""The estimate, for the user."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step on one device.

    Attributes:
        weights: exact.
        gradients: exact.
        optimizer: exact.
        activations: estimated (`FORMULA`).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def estimate_memory(
    model: Transformer,
    optimizer: Literal["adamw", "muon"],
    rows: int,
    length: int,
    dtype: Literal["fp32", "bf16"],
    target_length: int | None = None,
    recomputed: int = 0,
    chunk: int = 0,
) -> MemoryEstimate:
    """Estimates the memory of a training step of one process.

    Args:
        model: may be on the meta device.
        optimizer: determines the optimizer state.
        rows: of a micro-batch.
        length: tokens of a row.
        dtype: of the activations.
        target_length: tokens of an encoder-decoder's target row.
        recomputed: number of blocks with gradient checkpointing (`Transformer.set_gradient_checkpointing`).
        chunk: targets whose logits are held at once (model/loss.py), with their softmax in fp32 and gradient. They
            count with the activations, all of which are alive then.
    """
    tables, matrices, rest = (sum(p.numel() for p in kind) for kind in parameter_groups(model))
    weights, trained = sum(p.numel() for p in model.parameters()), tables + matrices + rest
    state = 2 * trained - (matrices if optimizer == "muon" else 0)
    size = 2 if dtype == "bf16" else 4
    blocks = _bytes_of_blocks(model.config, length, target_length, size)
    copies = size * matrices // len(blocks) if dtype == "bf16" else 0
    saved = [rows * block + copies for block in blocks]
    again, kept = saved[:recomputed], sum(saved[recomputed:])
    inputs = len(again) * rows * max(length, target_length or 0) * model.config.hidden_size * size
    # The last blocks are freed by their backward pass before the first recomputed block saves its activations again, so
    # the peak is the larger of the two, not their sum. With 3 blocks of 10 of which 1 is recomputed: max(20, 10).
    activations = inputs + max(kept, *again) if again else kept
    logits = min(chunk, rows * (target_length or length)) * model.config.vocab_size * (2 * size + 8)
    return MemoryEstimate(4 * weights, 4 * trained, 4 * state, activations + logits)


def estimate_memory_per_process(
    memory: MemoryEstimate, model: Transformer, mode: ParallelMode, processes: int
) -> MemoryEstimate:
    """Estimates the memory of each process when the weights are distributed by `mode` (parallel.py).

    Weights that are gathered temporarily count with the weights: all of them under "zero2"; otherwise those outside the
    blocks and two blocks, the current one and the prefetched next one.

    Args:
        memory: of a single process.
        model: may be on the meta device.
        mode: of parallelism.
        processes: among which one copy of the weights is sharded; under "hybrid" those of one node.
    """
    if mode == "ddp" or processes == 1:
        return memory
    blocks = [4 * sum(p.numel() for p in part.parameters()) for part in model.modules() if isinstance(part, Block)]
    gathered = memory.weights if mode == "zero2" else memory.weights - sum(blocks) + 2 * max(blocks)

    def part(size: int) -> int:
        return -(-size // processes)

    return MemoryEstimate(
        part(memory.weights) + gathered, part(memory.gradients), part(memory.optimizer), memory.activations
    )


def _bytes_of_blocks(config: ModelConfig, length: int, target_length: int | None, size: int) -> list[int]:
    """Returns the bytes that autograd saves of each block for one row.

    Args:
        config: shape of the model.
        length: tokens of the row.
        target_length: tokens of an encoder-decoder's target row.
        size: bytes of an activation.
    """
    first: Literal["encoder", "decoder"] = "decoder" if config.architecture == "decoder" else "encoder"
    token = _attention(config, size, rotated=True) + _feed_forward(config, size)
    kept = [length * token + _scores(config, length, size)] * config.layers(first)
    if target_length is not None and config.architecture == "encoder_decoder":
        own = target_length * (token + _queries(config, size, rotated=False))
        seen = length * _keys_and_values(config, size, rotated=False)
        kept += [own + seen + _scores(config, target_length, size)] * config.layers("decoder")
    return kept


def _attention(config: ModelConfig, size: int, rotated: bool) -> int:
    """Bytes for each token of self-attention."""
    return _queries(config, size, rotated) + _keys_and_values(config, size, rotated)


def _queries(config: ModelConfig, size: int, rotated: bool) -> int:
    """Bytes for each query token: inputs of the norms, queries and output."""
    width = config.num_attention_heads * config.head_dim
    return _norms(config, size) + size * 2 * width + _saved_inputs(config, width, size, rotated)


def _keys_and_values(config: ModelConfig, size: int, rotated: bool) -> int:
    """Bytes for each key token."""
    width = config.num_key_value_heads * config.head_dim
    return size * 2 * width + _saved_inputs(config, width, size, rotated)


def _saved_inputs(config: ModelConfig, width: int, size: int, rotated: bool) -> int:
    """Bytes of queries or keys saved before the QK norm (in fp32) and before the rotation."""
    rotated = rotated and config.positions.kind == "rotary"
    return width * (4 * config.attention.qk_norm + size * rotated)


def _feed_forward(config: ModelConfig, size: int) -> int:
    """Bytes for each token: the hidden layer before and after the activation, and both factors of a gate."""
    return _norms(config, size) + size * (4 if config.feed_forward.gated else 2) * config.intermediate_size


def _norms(config: ModelConfig, size: int) -> int:
    """Bytes for each token: the fp32 input of each norm of a sub-layer, and the sub-layer's own input."""
    return config.hidden_size * (4 * (2 if config.norm.placement == "both" else 1) + size)


def _scores(config: ModelConfig, length: int, size: int) -> int:
    """Bytes of attention scores that no fused kernel can discard: those with a learned bias or a soft cap."""
    if config.positions.kind == "relative":
        return config.num_attention_heads * length * length * size
    if not config.attention.softcap:
        return 0
    windows = config.attention.sliding_windows
    seen = sum(2 * window if cheaper_in_blocks(window, length) else length for window in windows) // len(windows)
    return config.num_attention_heads * length * seen * size
