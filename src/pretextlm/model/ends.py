"""The ends of the trunk: tokens become hidden states, and these what the language-model head's matrix reads.

Axis letters: B rows, T positions, N labelled positions, D hidden_size, E embedding_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pretextlm.model.blocks import ACTIVATIONS, Linear, Table
from pretextlm.model.config import ModelConfig
from pretextlm.model.model_inputs import Row
from pretextlm.model.norm import Norm
from pretextlm.model.positions import Sinusoids

INITIAL_STD = 0.02


class Embedding(nn.Module):
    """Tokens, types and positions added up, normalised, and projected to the residual stream's width."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        size, parts, places = config.embedding_size, config.embedding, config.positions
        self.scale = parts.scale
        self.types = Table(config.type_vocab_size, size) if config.type_vocab_size else None
        self.positions = Table(places.max_positions, size) if places.kind == "learned" else None
        self.sinusoids = Sinusoids(places, size) if places.kind == "sinusoidal" else None
        self.offset = places.offset
        self.norm = Norm(config.norm, size) if parts.norm else nn.Identity()
        wide = size != config.hidden_size
        self.projection = Linear(size, config.hidden_size, parts.projection_bias) if wide else None

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Tables N(0, 0.02²), the projection with variance 1/fan-in."""
        for table in (self.types, self.positions):
            if table is not None:
                nn.init.normal_(table.weight, 0.0, INITIAL_STD, generator=generator)
        if self.projection is not None:
            draw_fan_in(self.projection, generator)
        if isinstance(self.norm, Norm):
            self.norm.reset_parameters()

    def forward(self, tokens_BTE: Tensor, row: Row, dtype: torch.dtype) -> Tensor:
        """(B, T, D) from the tokens' embedding; without types, every token is of type 0."""
        x = tokens_BTE * self.scale if self.scale != 1 else tokens_BTE
        if self.types is not None:
            x = x + (self.types.weight[0] if row.types is None else self.types(row.types))
        if self.positions is not None:
            x = x + self.positions(row.positions + self.offset)
        if self.sinusoids is not None:
            x = x + self.sinusoids(row.positions)
        out: Tensor = self.norm(x.to(dtype))
        return out if self.projection is None else self.projection(out)


class HeadLayers(nn.Module):
    """What the language-model head does to a hidden state before its matrix."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts, size = config.head, config.embedding_size
        wide = size != config.hidden_size
        self.dense = Linear(config.hidden_size, size, parts.dense and parts.dense_bias) if parts.dense or wide else None
        self.activation = None if parts.activation == "none" else ACTIVATIONS[parts.activation]
        self.norm = Norm(config.norm, size) if parts.norm else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if parts.bias else None
        self.pooler = Linear(config.hidden_size, config.hidden_size, True) if parts.pooler else None
        if self.pooler is not None:
            self.pooler.requires_grad_(False)  # no loss reaches it
        self.scale = parts.scale

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """The dense layer with variance 1/fan-in, biases 0."""
        for layer in (self.dense, self.pooler):
            if layer is not None:
                draw_fan_in(layer, generator)
        if isinstance(self.norm, Norm):
            self.norm.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        x = hidden_ND if self.dense is None else self.dense(hidden_ND)
        if self.activation is not None:
            x = self.activation(x)
        out: Tensor = self.norm(x)
        return out * self.scale if self.scale != 1 else out


def draw_fan_in(layer: Linear, generator: torch.Generator | None) -> None:
    """Uniform with variance 1/fan-in, the bias 0."""
    bound = (3.0 / layer.in_features) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
