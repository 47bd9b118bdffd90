"""Floating-point operations of training, counted from shapes.

Forward and backward of a matrix of n weights over one token cost 6·n; attention scores and their use cost 12·H·E per
visible pair of tokens (half of the pairs under causal visibility, fewer under a window); the head is counted where
there are labels only, and embedding look-ups not at all (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361;
Chowdhery et al. 2022, appendix B).

Letters: D hidden_size, F intermediate_size, H heads, K key-value heads, E width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pretextlm.batch import Batch
from pretextlm.model.block_sparse_attention import BESIDE, Sparsity
from pretextlm.model.config import AttentionConfig, ModelConfig

FORWARD_ONLY = 1 / 3
"""Share of a training pass's operations that its forward half makes."""


@dataclass(frozen=True)
class Flops:
    """Operations of a training pass.

    Attributes:
        matrices: those of the blocks, and what projects the embedding to their width.
        attention: scores, and the sum of values.
        head: the language-model head, where there are labels.
    """

    matrices: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        return self.matrices + self.attention + self.head


def attention_weights(config: ModelConfig) -> tuple[int, int]:
    """Weights of one attention: (queries and output, which are on its own row; keys and values, of the row it sees)."""
    of_a_head = 2 * config.hidden_size * config.head_dim
    return of_a_head * config.num_attention_heads, of_a_head * config.num_key_value_heads


def feed_forward_weights(config: ModelConfig) -> int:
    """Weights of one feed-forward layer; a gated one has a third matrix."""
    return (3 if config.feed_forward.gated else 2) * config.hidden_size * config.intermediate_size


def head_weights(config: ModelConfig) -> int:
    """Weights that a hidden state meets on its way to the logits."""
    wide = config.embedding_size != config.hidden_size
    dense = config.hidden_size * config.embedding_size if config.head.dense or wide else 0
    return dense + config.vocab_size * config.embedding_size


def pairs(length: int, causal: bool, window: int = 0) -> float:
    """Pairs of tokens of a row that see each other; a pair's two orders are two, and no token's own is left out.

    Args:
        window: as in `AttentionConfig.windows`.
    """
    reach = window if causal else window // 2
    if not window or reach >= length:
        return length * length * (0.5 if causal else 1.0)
    return (1.0 if causal else 2.0) * (length * reach - reach * reach / 2)


def pairs_in_blocks(parts: AttentionConfig, length: int) -> float:
    """The same of one document that is read in blocks."""
    sparsity = Sparsity(parts.block_size, parts.random_blocks, parts.draw_blocks)
    if length <= sparsity.whole:
        return pairs(length, causal=False)
    size, between = sparsity.size, length / sparsity.size - 2
    seen = between * (BESIDE + sparsity.random * sparsity.draw) - 2  # the second and the last but one see one fewer
    return seen * size * size + 2.0 * size * length


def count(
    config: ModelConfig, rows: int, length: int, labels: int, causal: bool = False, target_length: int | None = None
) -> Flops:
    """Operations of a training pass over rows of `length` tokens.

    Args:
        labels: positions that go through the head, over all rows.
        causal: the row is read under causal visibility.
        target_length: of an encoder-decoder's second row.
    """
    first: Literal["encoder", "decoder"] = "decoder" if config.architecture == "decoder" else "encoder"
    own, seen = attention_weights(config)
    feed_forward = feed_forward_weights(config)
    weights: float = config.layers(first) * (own + seen + feed_forward) * length
    if config.attention.global_projections:
        weights += config.layers(first) * (own // 2 + seen) * length
    visible = _stack_pairs(config, first, length, causal)
    tokens = length
    if target_length is not None and config.architecture == "encoder_decoder":
        layers = config.layers("decoder")
        weights += layers * ((2 * own + seen + feed_forward) * target_length + seen * length)
        visible += _stack_pairs(config, "decoder", target_length, causal=True) + layers * target_length * length
        tokens += target_length
    if config.embedding_size != config.hidden_size:
        weights += config.hidden_size * config.embedding_size * tokens
    per_batch = 0
    if config.positions.kind == "disentangled":  # contents meet places, of which each layer makes keys and queries
        places = 2 * config.positions.buckets
        per_batch = config.layers(first) * places * (own + seen) // 2
        visible += config.layers(first) * places * length
    return Flops(
        matrices=6.0 * (weights * rows + per_batch),
        attention=12.0 * config.num_attention_heads * config.head_dim * visible * rows,
        head=6.0 * head_weights(config) * labels,
    )


def training_flops(config: ModelConfig, batch: Batch, labels: int) -> float:
    """Operations to train a model of this shape on a batch, `labels` positions of which go through the head."""
    rows, length = batch.input_ids.shape
    target = None if batch.decoder_input_ids is None else int(batch.decoder_input_ids.shape[1])
    return count(config, int(rows), int(length), labels, batch.attention == "causal", target).total


def _stack_pairs(config: ModelConfig, stack: Literal["encoder", "decoder"], length: int, causal: bool) -> float:
    """Over all layers of a stack; tokens that see and are seen from beyond a window count on top of it."""
    windows, all_pairs = config.attention.windows, pairs(length, causal)
    if config.attention.block_size:
        return config.layers(stack) * min(all_pairs, pairs_in_blocks(config.attention, length))
    beyond = config.attention.global_tokens * length * (1 if causal else 2)
    found = 0.0
    for window in (windows[i % len(windows)] for i in range(config.layers(stack))):
        found += min(all_pairs, pairs(length, causal, window) + beyond) if window else all_pairs
    return found
