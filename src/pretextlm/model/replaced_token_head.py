"""Modules of replaced-token detection (ELECTRA): the small generator and the discriminator's head and embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import ModelConfig
from pretextlm.model.layers import INITIAL_STD, EmbeddingTable, Linear, init_uniform_fan_in
from pretextlm.model.loss import chunk_of
from pretextlm.model.transformer import Transformer


def generator_config(config: ModelConfig, size: float) -> ModelConfig:
    """Derive the shape of a generator: the same depth, width, heads and feed-forward layer scaled by `size`.

    Heads keep their width (there is at least one), and the embedding is as wide as the given model's, to be shared.

    Args:
        config: Shape of the discriminator.
        size: Fraction of its width.
    """
    heads = max(1, round(config.num_attention_heads * size))
    return ModelConfig.parse(
        {
            **config.model_dump(),
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "hidden_size": heads * config.head_dim,
            "intermediate_size": 0,
            "embedding_size": config.embedding_size,
            "head_dim": config.head_dim,
        }
    )


class Generator(Transformer):
    """A masked language model whose embedding table is another model's, or its own."""

    embed_tokens: EmbeddingTable

    def __init__(self, config: ModelConfig, shares_embedding: bool) -> None:
        super().__init__(config)
        self.shares_embedding = shares_embedding
        if shares_embedding:
            del self.embed_tokens

    def tie_embedding(self, embedding: EmbeddingTable) -> None:
        """Use another model's table, unless this one has its own.

        The table is stored past nn.Module's registry, so it is neither listed among this model's parameters nor saved
        with them.
        """
        if self.shares_embedding:
            self.__dict__["embed_tokens"] = embedding


class ReplacedTokenHead(nn.Module):
    """Dense layer, GELU, one logit: is this token a replacement? (Clark et al. 2020.)"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=True)
        self.out = nn.Linear(config.hidden_size, 1)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize the dense layer with variance 1/fan-in, the output with N(0, 0.02²), biases with 0."""
        init_uniform_fan_in(self.dense, generator)
        nn.init.normal_(self.out.weight, 0.0, INITIAL_STD, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """Returns the (M,) logits, in fp32."""
        return self.out(functional.gelu(self.dense(hidden_MD)).float()).squeeze(-1)  # type: ignore[no-any-return]


class DeltaEmbedding(nn.Embedding):
    """The difference of the discriminator's embedding from the generator's table (DeBERTa-v3)."""

    def reset_parameters(self, generator: Any = None) -> None:
        """Initialize with zero: both models start from the same embedding."""
        nn.init.zeros_(self.weight)


@torch.no_grad()
def sample_tokens(model: Transformer, hidden_ND: Tensor, draws_N: Tensor) -> Tensor:
    """Sample tokens from softmax(logits), by inversion of the cumulative distribution.

    The distribution is that of argmax(logits + Gumbel noise) at temperature 1, without a random number for every
    entry of the vocabulary. The first token whose cumulative probability exceeds u = (draw + ½) / 2³¹ is taken. The
    sums are computed in fp64, whose rounding is far below the step 2⁻³¹ of u; u is scaled by the last sum, which may
    differ from 1.

    Args:
        model: The generator.
        hidden_ND: Its hidden states.
        draws_N: Integers uniform in 0 … 2³¹-1.

    Returns:
        (N,) int64 ids.
    """
    ids = torch.empty(len(draws_N), dtype=torch.int64, device=hidden_ND.device)
    chunk = chunk_of(hidden_ND.device)
    for start in range(0, len(ids), chunk):
        part = slice(start, start + chunk)
        probabilities_CV = model.logits(hidden_ND[part]).softmax(dim=1, dtype=torch.float32)
        sums_CV = probabilities_CV.cumsum(dim=1, dtype=torch.float64)
        threshold_C1 = (draws_N[part, None].double() + 0.5) * 2.0**-31 * sums_CV[:, -1:]
        ids[part] = torch.searchsorted(sums_CV, threshold_C1, right=True).squeeze(1)
    return ids.clamp_(max=model.config.vocab_size - 1)
