"""The embedding layer: token ids become the hidden states that the first block reads.

Axis letters: B rows, T positions, D hidden_size, E embedding_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretextlm.model.config import ModelConfig
from pretextlm.model.layers import INITIAL_STD, EmbeddingTable, Linear, init_uniform_fan_in
from pretextlm.model.model_inputs import StackInputs
from pretextlm.model.norm import Norm
from pretextlm.model.positions import SinusoidalEmbedding


class Embeddings(nn.Module):
    """Adds token-type and position embeddings to those of the tokens, normalizes and projects the sum.

    The tokens' own table is `Transformer.embed_tokens`, which the head may be tied to.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, embedding, positions = config.embedding_size, config.embedding, config.positions
        self.scale = embedding.scale
        self.types = EmbeddingTable(config.type_vocab_size, size) if config.type_vocab_size else None
        learned = positions.kind == "learned"
        self.positions = EmbeddingTable(positions.max_position_embeddings, size) if learned else None
        self.sinusoids = SinusoidalEmbedding(positions, size) if positions.kind == "sinusoidal" else None
        self.offset = positions.offset
        self.norm = Norm(config.norm, size) if embedding.norm else nn.Identity()
        factorized = size != config.hidden_size
        self.projection = Linear(size, config.hidden_size, embedding.projection_bias) if factorized else None

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Initialize tables with N(0, 0.02²) and the projection with variance 1/fan-in."""
        for table in (self.types, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, 0.0, INITIAL_STD, generator=generator)
        if self.projection is not None:
            init_uniform_fan_in(self.projection, generator)
        if isinstance(self.norm, Norm):
            self.norm.reset_parameters()

    def forward(self, tokens_BTE: Tensor, inputs: StackInputs, dtype: torch.dtype) -> Tensor:
        """Embed rows of tokens.

        Args:
            tokens_BTE: Rows of the token table, in fp32.
            inputs: Positions and token types; without token types, every token has type 0.
            dtype: Type of the activations.

        Returns:
            (B, T, D) hidden states.
        """
        x = tokens_BTE * self.scale if self.scale != 1 else tokens_BTE
        if self.types is not None:
            x = x + (self.types.weight[0] if inputs.token_type_ids is None else self.types(inputs.token_type_ids))
        if self.positions is not None:
            x = x + self.positions(inputs.position_ids + self.offset)
        if self.sinusoids is not None:
            x = x + self.sinusoids(inputs.position_ids)
        out: Tensor = self.norm(x.to(dtype))
        return out if self.projection is None else self.projection(out)
