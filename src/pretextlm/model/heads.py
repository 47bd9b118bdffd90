"""Heads that an objective trains along with the trunk (`Objective.heads`).

Each draws its own weights by `reset_parameters(generator)`.

Axis letters: B rows, D hidden_size, C classes, M tokens predicted, P size of a place's embedding.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.blocks import Table
from pretextlm.model.config import ModelConfig


class PairHead(nn.Module):
    """How the two parts of a row relate: a pooled first state, then a score for each class (BERT).

    Computed in fp32 whatever the trunk's type: it is one position a row.
    """

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, classes)

    def forward(self, first_BD: Tensor) -> Tensor:
        """States of the rows' [CLS] (B, D) → logits (B, C)."""
        pooled_BD = torch.tanh(self.pooler(first_BD.to(self.pooler.weight.dtype)))
        logits_BC: Tensor = self.classifier(pooled_BD)
        return logits_BC

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Pooler uniform with variance 1/fan-in, classifier N(0, 0.02²), biases 0."""
        bound = (3.0 / self.pooler.in_features) ** 0.5
        self.pooler.weight.uniform_(-bound, bound, generator=generator)
        self.classifier.weight.normal_(0.0, 0.02, generator=generator)
        self.pooler.bias.zero_()
        self.classifier.bias.zero_()


class GeluLayer(nn.Module):
    """A matrix, GELU and a layer norm."""

    def __init__(self, inputs: int, outputs: int, eps: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) → (…, outputs), in the type of `x`."""
        norm = self.norm
        x = functional.gelu(functional.linear(x, self.linear.weight.to(x.dtype), self.linear.bias.to(x.dtype)))
        return functional.layer_norm(x, x.shape[-1:], norm.weight.to(x.dtype), norm.bias.to(x.dtype), norm.eps)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """The matrix uniform with variance 1/fan-in, its bias 0, the norm without effect."""
        bound = (3.0 / self.linear.in_features) ** 0.5
        self.linear.weight.uniform_(-bound, bound, generator=generator)
        self.linear.bias.zero_()
        self.norm.reset_parameters()


class SpanBoundaryHead(nn.Module):
    """The states beside a hidden span, and a place in it → a state for the language-model head (SpanBERT).

    Two layers, from 2·D + P to D to D.
    """

    def __init__(self, config: ModelConfig, places: int, place_size: int) -> None:
        super().__init__()
        width = config.hidden_size
        self.embed_place = Table(places, place_size)
        self.first = GeluLayer(2 * width + place_size, width, config.norm.eps)
        self.second = GeluLayer(width, width, config.norm.eps)

    def forward(self, before_MD: Tensor, after_MD: Tensor, nth: NDArray[np.integer]) -> Tensor:
        """States before and after the span (M, D), and the token's place in it (M,) from 0 → (M, D)."""
        index_M = torch.from_numpy(nth.astype(np.int64)).to(before_MD.device, non_blocking=True)
        place_MP = self.embed_place(index_M).to(before_MD.dtype)
        out_MD: Tensor = self.second(self.first(torch.cat([before_MD, after_MD, place_MP], dim=1)))
        return out_MD

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Each layer by itself; the embedding N(0, 1), as large as the normalised states beside it."""
        self.embed_place.weight.normal_(0.0, 1.0, generator=generator)
        self.first.reset_parameters(generator)
        self.second.reset_parameters(generator)
