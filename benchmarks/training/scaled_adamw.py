"""AdamW whose step is a share of each matrix's own size, as nanoT5 documents it for T5.

The learning rate of a tensor is multiplied by the root mean square of its weights, at least 0.001 (the relative step
of Adafactor, Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235); all else is AdamW without decay.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LEAST = 1e-3


class ScaledAdamW(torch.optim.Optimizer):
    """With the moments' rates and the epsilon that nanoT5 has."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
    ) -> None:
        super().__init__(parameters, {"lr": lr})
        self.betas, self.eps, self.steps = betas, eps, 0
        self.weights = [p for group in self.param_groups for p in group["params"]]
        self.means = [torch.zeros_like(p) for p in self.weights]
        self.squares = [torch.zeros_like(p) for p in self.weights]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.steps += 1
        first, second = self.betas
        gradients = [_gradient(p) for p in self.weights]
        torch._foreach_lerp_(self.means, gradients, 1 - first)
        torch._foreach_mul_(self.squares, second)
        torch._foreach_addcmul_(self.squares, gradients, gradients, value=1 - second)
        size = torch._foreach_sqrt(self.squares)
        torch._foreach_add_(size, self.eps)
        rate = self.param_groups[0]["lr"] * (1 - second**self.steps) ** 0.5 / (1 - first**self.steps)
        norms = torch._foreach_norm(self.weights)
        scales = [
            -rate * max(LEAST, float(norm) / p.numel() ** 0.5) for norm, p in zip(norms, self.weights, strict=True)
        ]
        torch._foreach_addcdiv_(self.weights, self.means, size, scales)


def _gradient(weight: nn.Parameter) -> Tensor:
    return torch.zeros_like(weight) if weight.grad is None else weight.grad
