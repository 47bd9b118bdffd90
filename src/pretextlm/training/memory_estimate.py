"""Memory that training needs: exact for weights, gradients and the optimizer, an estimate for activations.

Weights are fp32 and so are gradients. AdamW keeps two numbers for each weight, Muon one for each weight of the blocks'
matrices (and AdamW's two for the rest). What autograd keeps of a forward pass is summed from the shapes of the parts;
attention keeps its inputs and its output, not its scores, as fused kernels do. Blocks that are recomputed keep their
inputs alone. The logits are never held all at once.

Letters: D hidden_size, F intermediate_size, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pretextlm.model.blocks import Block
from pretextlm.model.config import ModelConfig
from pretextlm.model.sliding_window_attention import MIN_WINDOWS_IN_ROW
from pretextlm.model.transformer import Transformer
from pretextlm.training.optimizers import kinds

if TYPE_CHECKING:
    from pretextlm.training.parallel import Way

FORMULA = (
    "for each token and layer D + 2·H·E + 2·K·E of attention and D + 2·F of feed-forward (4·F where gated) in the "
    "activations' type, H·E + K·E more with rotary positions and with normalised heads, and 2·D of norms' inputs in "
    "fp32; a decoder over an encoder has a second attention; a learned bias of distance keeps H scores a pair of "
    "tokens; with bf16, a copy of the blocks' matrices"
)
"""The estimate in words."""


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step on one device.

    Attributes:
        weights, gradients, optimizer: exact.
        activations: an estimate (`FORMULA`).
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(
    model: Transformer,
    optimizer: Literal["adamw", "muon"],
    rows: int,
    length: int,
    dtype: Literal["fp32", "bf16"],
    target_length: int | None = None,
    recomputed: int = 0,
) -> Memory:
    """Of a step over `rows` rows at once.

    Args:
        model: it may be on the meta device.
        length, target_length: tokens of a row, and of an encoder-decoder's second row.
        recomputed: first blocks of which only the inputs are kept (`Transformer.set_gradient_checkpointing`).
    """
    tables, matrices, rest = (sum(p.numel() for p in kind) for kind in kinds(model))
    weights, trained = sum(p.numel() for p in model.parameters()), tables + matrices + rest
    state = 2 * trained - (matrices if optimizer == "muon" else 0)
    size = 2 if dtype == "bf16" else 4
    blocks = _bytes_of_blocks(model.config, length, target_length, size)
    copies = size * matrices // len(blocks) if dtype == "bf16" else 0
    held = [rows * block + copies for block in blocks]
    again, whole = held[:recomputed], sum(held[recomputed:])
    inputs = len(again) * rows * max(length, target_length or 0) * model.config.hidden_size * size
    # When the first blocks are computed again, what the others kept is free.
    return Memory(4 * weights, 4 * trained, 4 * state, inputs + max(whole, *again) if again else whole)


def on_each(memory: Memory, model: Transformer, way: Way, processes: int) -> Memory:
    """What each of so many processes holds when weights are parallelize in that way (parallel.py).

    Whole weights that are gathered for a while count with the weights: all of them under "zero2", else those outside of
    the blocks and two blocks, the one that computes and the next.

    Args:
        memory: of one process alone.
        processes: over which a copy of the weights is parallelize; under "hybrid" those of one machine.
    """
    if way == "ddp" or processes == 1:
        return memory
    blocks = [4 * sum(p.numel() for p in part.parameters()) for part in model.modules() if isinstance(part, Block)]
    gathered = memory.weights if way == "zero2" else memory.weights - sum(blocks) + 2 * max(blocks)

    def part(size: int) -> int:
        return -(-size // processes)

    return Memory(part(memory.weights) + gathered, part(memory.gradients), part(memory.optimizer), memory.activations)


def _bytes_of_blocks(config: ModelConfig, length: int, target_length: int | None, size: int) -> list[int]:
    """What autograd keeps of each block for one row, `size` bytes for a number of the activations' type."""
    first: Literal["encoder", "decoder"] = "decoder" if config.architecture == "decoder" else "encoder"
    token = _attention(config, size, turned=True) + _feed_forward(config, size)
    kept = [length * token + _scores(config, length, size)] * config.layers(first)
    if target_length is not None and config.architecture == "encoder_decoder":
        own = target_length * (token + _queries(config, size, turned=False))
        seen = length * _keys_and_values(config, size, turned=False)
        kept += [own + seen + _scores(config, target_length, size)] * config.layers("decoder")
    return kept


def _attention(config: ModelConfig, size: int, turned: bool) -> int:
    """For each token of a row that sees itself."""
    return _queries(config, size, turned) + _keys_and_values(config, size, turned)


def _queries(config: ModelConfig, size: int, turned: bool) -> int:
    """For each token that looks: the norms, its queries and the output."""
    width = config.num_attention_heads * config.head_dim
    return _norms(config, size) + size * 2 * width + _made_ready(config, width, size, turned)


def _keys_and_values(config: ModelConfig, size: int, turned: bool) -> int:
    """For each token that is seen."""
    width = config.num_key_value_heads * config.head_dim
    return size * 2 * width + _made_ready(config, width, size, turned)


def _made_ready(config: ModelConfig, width: int, size: int, turned: bool) -> int:
    """Queries or keys before they are normalised, and before they are turned."""
    turned = turned and config.positions.kind == "rotary"
    return width * (4 * config.attention.qk_norm + size * turned)


def _feed_forward(config: ModelConfig, size: int) -> int:
    return _norms(config, size) + size * (4 if config.feed_forward.gated else 2) * config.intermediate_size


def _norms(config: ModelConfig, size: int) -> int:
    """The inputs of a sub-layer's norms, which are normalised in fp32, and its own input."""
    return config.hidden_size * (4 * (2 if config.norm.placement == "both" else 1) + size)


def _scores(config: ModelConfig, length: int, size: int) -> int:
    """Scores that no fused kernel can forget: a bias that is learned, or bounds."""
    if config.positions.kind == "relative":
        return config.num_attention_heads * length * length * size
    if not config.attention.softcap:
        return 0
    windows = config.attention.sliding_windows
    seen = sum(2 * window if 0 < MIN_WINDOWS_IN_ROW * window <= length else length for window in windows) // len(
        windows
    )
    return config.num_attention_heads * length * seen * size
