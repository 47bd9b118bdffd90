"""Floating-point operations of training, counted from shapes.

Forward and backward of a matrix of n weights over one token cost 6·n; attention scores and their use cost 12·D per
visible pair of tokens (half of the pairs under causal visibility); the head is counted where there are labels only, and
embedding look-ups not at all (Kaplan et al. 2020, https://arxiv.org/abs/2001.08361; Chowdhery et al. 2022, appendix B).
"""

from __future__ import annotations

from pretextlm.batch import Batch
from pretextlm.model.config import ModelConfig

FORWARD_ONLY = 1 / 3
"""Share of a training pass's operations that its forward half makes."""


def block_weights(config: ModelConfig) -> tuple[int, int]:
    """(weights of one attention, weights of one feed-forward layer)."""
    key_value = config.num_key_value_heads * config.head_dim
    attention = 2 * config.hidden_size * (config.hidden_size + key_value)
    return attention, 2 * config.hidden_size * config.intermediate_size


def training_flops(config: ModelConfig, batch: Batch, labels: int) -> float:
    """Operations to train a model of this shape on a batch, `labels` positions of which go through the head."""
    attention, feed_forward = block_weights(config)
    width, layers = config.hidden_size, config.num_hidden_layers
    rows, length = batch.input_ids.shape
    pairs = length * length * (0.5 if batch.attention == "causal" else 1.0)
    total = layers * (6.0 * (attention + feed_forward) * length + 12.0 * width * pairs)
    if batch.decoder_input_ids is not None and config.architecture == "encoder_decoder":
        target = batch.decoder_input_ids.shape[1]
        pairs = target * target * 0.5 + target * length
        cross = attention / 2 * (target + length)
        own = (attention + feed_forward) * target
        total += layers * (6.0 * (own + cross) + 12.0 * width * pairs)
    table = config.embedding_size
    projections = 0 if table == width else 6.0 * width * table * (rows * length + labels)
    return float(rows * total + projections + 6.0 * config.vocab_size * table * labels)
