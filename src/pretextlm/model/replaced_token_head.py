"""What replaced-token detection adds to the trunk: the small generator, the head that judges, and their embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.blocks import Table
from pretextlm.model.config import ModelConfig
from pretextlm.model.loss import chunk_of
from pretextlm.model.transformer import INITIAL_STD, Linear, Transformer


def generator_config(config: ModelConfig, size: float) -> ModelConfig:
    """A model of the same depth whose width, heads and feed-forward layer are `size` of the given one's.

    Heads keep their width (at least one head stands), and the embedding is as wide as the given model's, to be shared.
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

    embed_tokens: Table

    def __init__(self, config: ModelConfig, shares_embedding: bool) -> None:
        super().__init__(config)
        self.shares_embedding = shares_embedding
        if shares_embedding:
            del self.embed_tokens

    def share(self, embedding: Table) -> None:
        """Use this table, unless it has its own. It stays the other model's: it is neither listed nor saved here."""
        if self.shares_embedding:
            self.__dict__["embed_tokens"] = embedding


class ReplacedTokenHead(nn.Module):
    """Dense layer, GELU, one logit: is this token not the original? (Clark et al. 2020.)"""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size, bias=True)
        self.out = nn.Linear(config.hidden_size, 1)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        bound = (3.0 / self.dense.in_features) ** 0.5
        nn.init.uniform_(self.dense.weight, -bound, bound, generator=generator)
        nn.init.zeros_(self.dense.bias)
        nn.init.normal_(self.out.weight, 0.0, INITIAL_STD, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, hidden_MD: Tensor) -> Tensor:
        """(M,) logits in fp32."""
        return self.out(functional.gelu(self.dense(hidden_MD)).float()).squeeze(-1)  # type: ignore[no-any-return]


class DeltaEmbedding(nn.Embedding):
    """What a model adds to the table that the generator trains; zero at first, so that both begin alike."""

    def reset_parameters(self, generator: Any = None) -> None:
        nn.init.zeros_(self.weight)


@torch.no_grad()
def sample_tokens(model: Transformer, hidden_ND: Tensor, draws_N: Tensor) -> Tensor:
    """(N,) int64 ids drawn from softmax(logits), one uniform number each, by inversion.

    The distribution is that of argmax(logits + Gumbel noise) at temperature 1, without a random number for every
    entry of the vocabulary. The sums are made in fp64: their rounding is far below the draws' step of 2⁻³¹.

    Args:
        draws_N: integers uniform in 0 … 2³¹-1.
    """
    ids = torch.empty(len(draws_N), dtype=torch.int64, device=hidden_ND.device)
    chunk = chunk_of(hidden_ND)
    for start in range(0, len(ids), chunk):
        part = slice(start, start + chunk)
        probabilities_CV = model.logits(hidden_ND[part]).softmax(dim=1, dtype=torch.float32)
        sums_CV = probabilities_CV.cumsum(dim=1, dtype=torch.float64)
        at_C1 = (draws_N[part, None].double() + 0.5) * 2.0**-31 * sums_CV[:, -1:]
        ids[part] = torch.searchsorted(sums_CV, at_C1, right=True).squeeze(1)
    return ids.clamp_(max=model.config.vocab_size - 1)
