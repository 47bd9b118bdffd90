"""Normalisation: root mean square or mean and variance, with or without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import NormConfig


def normalise(x: Tensor, eps: float) -> Tensor:
    """RMSNorm without parameters (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467)."""
    return functional.rms_norm(x, (x.size(-1),), eps=eps)


class Norm(nn.Module):
    """x normalised over its last dimension, in fp32 where it has weights, and returned in its own type."""

    def __init__(self, config: NormConfig, size: int, weight: bool | None = None) -> None:
        super().__init__()
        self.eps, self.layer, self.shift = config.eps, config.kind == "layer", float(config.around_one)
        weighted = config.weight if weight is None else weight
        self.weight = nn.Parameter(torch.full((size,), 1.0 - self.shift)) if weighted else None
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias and weighted else None

    def reset_parameters(self) -> None:
        """Weight so that nothing is scaled, bias 0."""
        if self.weight is not None:
            nn.init.constant_(self.weight, 1.0 - self.shift)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            return functional.layer_norm(x, (x.size(-1),), eps=self.eps) if self.layer else normalise(x, self.eps)
        weight = self.weight + self.shift if self.shift else self.weight
        wide = x.float()
        if self.layer:
            out = functional.layer_norm(wide, (x.size(-1),), weight, self.bias, self.eps)
        else:
            out = functional.rms_norm(wide, (x.size(-1),), weight, self.eps)
        return out.to(x.dtype)
