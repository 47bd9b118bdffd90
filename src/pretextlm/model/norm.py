"""Normalization layers: RMSNorm and LayerNorm, with or without weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import NormConfig


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """Apply RMSNorm without parameters (Zhang & Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Returns:
        x / √(mean(x²) + eps), over the last dimension.
    """
    return functional.rms_norm(x, (x.size(-1),), eps=eps)


class Norm(nn.Module):
    """RMSNorm or LayerNorm over the last dimension.

    Args:
        config: Kind of norm and its options.
        size: Length of the last dimension.
        weight: Whether it has a weight; None as `config` says.
    """

    def __init__(self, config: NormConfig, size: int, weight: bool | None = None) -> None:
        super().__init__()
        self.eps, self.layer, self.unit_offset = config.eps, config.kind == "layer", float(config.unit_offset)
        weighted = config.weight if weight is None else weight
        self.weight = nn.Parameter(torch.full((size,), 1.0 - self.unit_offset)) if weighted else None
        self.bias = nn.Parameter(torch.zeros(size)) if config.bias and weighted else None

    def reset_parameters(self) -> None:
        """Initialize the weight so that nothing is scaled, and the bias with 0."""
        if self.weight is not None:
            nn.init.constant_(self.weight, 1.0 - self.unit_offset)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize; in fp32 where there is a weight.

        Returns:
            A tensor of the shape and type of `x`.
        """
        if self.weight is None:
            return functional.layer_norm(x, (x.size(-1),), eps=self.eps) if self.layer else rms_norm(x, self.eps)
        weight = self.weight + self.unit_offset if self.unit_offset else self.weight
        wide = x.float()
        if self.layer:
            out = functional.layer_norm(wide, (x.size(-1),), weight, self.bias, self.eps)
        else:
            out = functional.rms_norm(wide, (x.size(-1),), weight, self.eps)
        return out.to(x.dtype)
