"""Floating-point operations of training, counted from shapes.

Forward and backward of a matrix of n weights over one token cost 6·n; attention scores and their use cost 12·D per
visible pair of tokens (half of the pairs under causal visibility); the head is counted where there are labels only, and
embedding look-ups not at all (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361; Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from pretextlm.model.config import ModelConfig


def block_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights of one attention, weights of one feed-forward layer)."""
    key_value = config.num_key_value_heads * config.head_dim
    attention = 2 * config.hidden_size * (config.hidden_size + key_value)
    return attention, 2 * config.hidden_size * config.intermediate_size


def flops_per_row(config: ModelConfig, length: int, decoder_length: int, labels: float, causal: bool) -> float:
    """Operations to train on one row.

    Args:
        length: width of the only, or the encoder's, row; decoder_length: of the decoder's, 0 without one.
        labels: positions with a loss.
        causal: visibility of the only row.
    """
    attention, feed_forward = block_weights(config)
    width, layers = config.hidden_size, config.num_hidden_layers
    pairs = length * length * (0.5 if causal else 1.0)
    total = layers * (6.0 * (attention + feed_forward) * length + 12.0 * width * pairs)
    if decoder_length:
        pairs = decoder_length * decoder_length * 0.5 + decoder_length * length
        cross = attention / 2 * (decoder_length + length)
        own = (attention + feed_forward) * decoder_length
        total += layers * (6.0 * (own + cross) + 12.0 * width * pairs)
    return total + 6.0 * config.vocab_size * width * labels
