"""Floating-point operations of training, counted from shapes.

A matrix of n weights costs 2·n per token in the forward pass (a multiplication and an addition for each weight) and
4·n in the backward pass, for the gradients of its input and of itself: 6·n. Attention scores and the weighted sum of
values are two such products with E numbers per head, 12·H·E for each pair of tokens that attend to each other: half of
the pairs in a causal model, fewer under a window. The head is counted only where there are labels, and embedding
look-ups not at all (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361;
Chowdhery et al. 2022, appendix B).

Letters: D hidden_size, F intermediate_size, H heads, K key-value heads, E head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pretextlm.batch import Batch
from pretextlm.model.block_sparse_attention import FIXED_BLOCKS, BlockSparsity
from pretextlm.model.config import AttentionConfig, ModelConfig

FORWARD_ONLY = 1 / 3
"""Fraction of a training step's operations that are its forward pass."""


@dataclass(frozen=True)
class Flops:
    """Operations of a training pass.

    Attributes:
        matrices: Matrices of the blocks, and the projection of the embedding to their width.
        attention: Scores, and the weighted sum of values.
        head: Language-model head, where there are labels.
    """

    matrices: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return self.matrices + self.attention + self.head


def attention_weights(config: ModelConfig) -> tuple[int, int]:
    """Count the weights of one attention.

    Returns:
        (those of queries and output, applied to its own row; those of keys and values, applied to the row it attends
        to).
    """
    per_head = 2 * config.hidden_size * config.head_dim
    return per_head * config.num_attention_heads, per_head * config.num_key_value_heads


def feed_forward_weights(config: ModelConfig) -> int:
    """Count the weights of one feed-forward layer; a gated one has a third matrix."""
    return (3 if config.feed_forward.gated else 2) * config.hidden_size * config.intermediate_size


def head_weights(config: ModelConfig) -> int:
    """Count the weights between a hidden state and its logits."""
    factorized = config.embedding_size != config.hidden_size
    dense = config.hidden_size * config.embedding_size if config.head.dense or factorized else 0
    return dense + config.vocab_size * config.embedding_size


def pairs(length: int, causal: bool, window: int = 0) -> float:
    """Count the (query, key) pairs of a row; a token's pair with itself counts, and so do both orders of a pair.

    With a reach of r tokens to one side, the first r tokens have fewer: length · r - r² / 2 pairs to that side.

    Args:
        length: Tokens of the row.
        causal: Whether only earlier tokens are attended to.
        window: Width of the window, as in `AttentionConfig.sliding_windows`; 0 for none.
    """
    reach = window if causal else window // 2
    if not window or reach >= length:
        return length * length * (0.5 if causal else 1.0)
    return (1.0 if causal else 2.0) * (length * reach - reach * reach / 2)


def block_sparse_pairs(attention: AttentionConfig, length: int) -> float:
    """Count the pairs of one document under block-sparse attention.

    The first and the last block attend to all tokens; each of the n - 2 between them to five blocks and the random
    ones, except for the second and the last but one, one of whose neighbours is the first or last block itself.
    """
    sparsity = BlockSparsity(attention.block_size, attention.num_random_blocks, attention.sample_random_blocks)
    if length <= sparsity.max_full_length:
        return pairs(length, causal=False)
    size, inner = sparsity.block_size, length / sparsity.block_size - 2
    attended = inner * (FIXED_BLOCKS + sparsity.num_random_blocks * sparsity.sample_random_blocks) - 2
    return attended * size * size + 2.0 * size * length


def count(
    config: ModelConfig, rows: int, length: int, labels: int, causal: bool = False, target_length: int | None = None
) -> Flops:
    """Count the operations of a training step over rows of `length` tokens.

    Args:
        config: Shape of the model.
        rows: Number of rows.
        length: Tokens of each.
        labels: Positions that go through the head, over all rows.
        causal: Whether the row is causal.
        target_length: Tokens of the decoder's row in an encoder-decoder.
    """
    first: Literal["encoder", "decoder"] = "decoder" if config.architecture == "decoder" else "encoder"
    own, keys = attention_weights(config)
    feed_forward = feed_forward_weights(config)
    weights: float = config.layers(first) * (own + keys + feed_forward) * length
    if config.attention.global_projections:
        weights += config.layers(first) * (own // 2 + keys) * length
    attended = _stack_pairs(config, first, length, causal)
    tokens = length
    if target_length is not None and config.architecture == "encoder_decoder":
        layers = config.layers("decoder")
        weights += layers * ((2 * own + keys + feed_forward) * target_length + keys * length)
        attended += _stack_pairs(config, "decoder", target_length, causal=True) + layers * target_length * length
        tokens += target_length
    if config.embedding_size != config.hidden_size:
        weights += config.hidden_size * config.embedding_size * tokens
    per_batch = 0
    if config.positions.kind == "disentangled":  # contents meet the embedding's rows, which each layer projects
        buckets = 2 * config.positions.num_buckets
        per_batch = config.layers(first) * buckets * (own + keys) // 2
        attended += config.layers(first) * buckets * length
    return Flops(
        matrices=6.0 * (weights * rows + per_batch),
        attention=12.0 * config.num_attention_heads * config.head_dim * attended * rows,
        head=6.0 * head_weights(config) * labels,
    )


def training_flops(config: ModelConfig, batch: Batch, labels: int) -> float:
    """Count the operations of training on a batch.

    Args:
        config: Shape of the model.
        batch: The batch.
        labels: Positions that go through the head.
    """
    rows, length = batch.input_ids.shape
    target = None if batch.decoder_input_ids is None else int(batch.decoder_input_ids.shape[1])
    return count(config, int(rows), int(length), labels, batch.attention == "causal", target).total


def _stack_pairs(config: ModelConfig, stack: Literal["encoder", "decoder"], length: int, causal: bool) -> float:
    """Pairs over all layers of a stack; global tokens attend, and are attended to, beyond a window."""
    windows, all_pairs = config.attention.sliding_windows, pairs(length, causal)
    if config.attention.block_size:
        return config.layers(stack) * min(all_pairs, block_sparse_pairs(config.attention, length))
    beyond = config.attention.global_tokens * length * (1 if causal else 2)
    found = 0.0
    for window in (windows[i % len(windows)] for i in range(config.layers(stack))):
        found += min(all_pairs, pairs(length, causal, window) + beyond) if window else all_pairs
    return found
