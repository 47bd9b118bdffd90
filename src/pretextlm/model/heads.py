"""Heads that an objective trains along with the trunk (`Objective.heads`).

Each initializes its own weights by `reset_parameters(generator)`.

Axis letters: B rows, D hidden_size, C classes, M tokens predicted, P size of a position's embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import ModelConfig
from pretextlm.model.layers import EmbeddingTable, init_uniform_fan_in


class PairHead(nn.Module):
    """Classifies how the two parts of a row relate: a pooler over the first token, then a classifier (BERT).

    Computed in fp32 whatever the type of the activations: it is one position per row.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, first_BD: Tensor) -> Tensor:
        """Classify rows.

        Args:
            first_BD: Hidden states of the rows' [CLS].

        Returns:
            (B, C) logits.
        """
        pooled_BD = torch.tanh(self.pooler(first_BD.to(self.pooler.weight.dtype)))
        logits_BC: Tensor = self.classifier(pooled_BD)
        return logits_BC

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize the pooler with variance 1/fan-in, the classifier with N(0, 0.02²), biases with 0."""
        init_uniform_fan_in(self.pooler, generator)
        self.classifier.weight.normal_(0.0, 0.02, generator=generator)
        self.classifier.bias.zero_()


class GeluLayer(nn.Module):
    """A linear layer, GELU and a LayerNorm."""

    def __init__(self, inputs: int, outputs: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (…, inputs).

        Returns:
            (…, outputs) in the type of `x`.
        """
        norm = self.norm
        x = functional.gelu(functional.linear(x, self.linear.weight.to(x.dtype), self.linear.bias.to(x.dtype)))
        return functional.layer_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize the linear layer with variance 1/fan-in and its bias with 0; the norm is neutral."""
        init_uniform_fan_in(self.linear, generator)
        self.norm.reset_parameters()


class SpanBoundaryHead(nn.Module):
    """Predicts a token of a masked span from the states beside the span and the token's position in it (SpanBERT).

    Two layers, from 2·D + P to D to D; the result goes to the language-model head.

    Args:
        config: Shape of the model.
        max_span: Number of positions in a span.
        position_size: P.
    """

    def __init__(self, config: ModelConfig, max_span: int, position_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.embed_place = EmbeddingTable(max_span, position_size)
        self.first = GeluLayer(2 * width + position_size, width, config.norm.eps)
        self.second = GeluLayer(width, width, config.norm.eps)

    def forward(self, before_MD: Tensor, after_MD: Tensor, nth: NDArray[np.integer]) -> Tensor:
        """Compute the hidden states to predict from.

        Args:
            before_MD: Hidden states just before the span.
            after_MD: Hidden states just after the span.
            nth: (M,) position of the token in its span, from 0.

        Returns:
            (M, D) hidden states.
        """
        index_M = torch.from_numpy(nth.astype(np.int64)).to(before_MD.device, non_blocking=True)
        position_MP = self.embed_place(index_M).to(before_MD.dtype)
        out_MD: Tensor = self.second(self.first(torch.cat([before_MD, after_MD, position_MP], dim=1)))
        return out_MD

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialize the layers; the embedding with N(0, 1), as large as the normalized hidden states beside it."""
        self.embed_place.weight.normal_(0.0, 1.0, generator=generator)
        self.first.reset_parameters(generator)
        self.second.reset_parameters(generator)
