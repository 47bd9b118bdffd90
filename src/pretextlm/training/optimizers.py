"""AdamW for tables, Muon for matrices: one optimizer to step, save and load.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix's momentum by the nearest
semi-orthogonal matrix, found by five Newton–Schulz steps. Here matrices of one shape are stacked and orthogonalised in
one batch, which is what makes it cheap at small sizes, and updates are scaled to the root mean square of AdamW's
(Liu et al. 2025, https://arxiv.org/abs/2502.16982), so that one learning rate serves both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pretextlm.training.recipe import TrainingConfig

NEWTON_SCHULZ_STEPS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
ADAM_RMS = 0.2


def orthogonalise(matrices_GRC: Tensor, dtype: torch.dtype) -> Tensor:
    """Nearly the semi-orthogonal factor UVᵀ of each of G matrices (R, C): singular values end near 1.

    The quintic iteration x ← ax + b(xxᵀ)x + c(xxᵀ)²x on the smaller side, in `dtype`.
    """
    x = matrices_GRC.to(dtype)
    tall = x.size(1) > x.size(2)
    if tall:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True).to(dtype) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices_GRC.dtype)


class Muon:
    """Momentum, orthogonalised, for equal-shaped groups of matrices.

    Args:
        groups: (shape, parameters) of the matrices; their order names the state.
        dtype: of the Newton–Schulz products: bf16 where products are fast in it, else fp32.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], momentum: float, decay: float, dtype: torch.dtype) -> None:
        by_shape: dict[torch.Size, list[nn.Parameter]] = {}
        for parameter in parameters:
            by_shape.setdefault(parameter.shape, []).append(parameter)
        self.groups = list(by_shape.values())
        self.buffers = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]
        self.momentum, self.decay, self.dtype = momentum, decay, dtype

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack([p.grad for p in group if p.grad is not None])
            assert len(gradients) == len(group), "every matrix takes part in the loss"
            buffer.lerp_(gradients, 1 - self.momentum)
            nesterov = gradients.lerp_(buffer, self.momentum)
            update = orthogonalise(nesterov, self.dtype)
            scale = ADAM_RMS * max(update.shape[1:]) ** 0.5
            weights: list[Tensor] = list(group)
            if self.decay:
                torch._foreach_mul_(weights, 1 - learning_rate * self.decay)
            torch._foreach_add_(weights, list(update.unbind()), alpha=-learning_rate * scale)

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in itertools.chain.from_iterable(self.groups):
            parameter.grad = None


def kinds(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(embeddings and head, matrices of the blocks, everything else), of those that are trained."""
    kinds: tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]] = ([], [], [])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        table = parameter.ndim == 2 and ("embed" in name or "lm_head" in name)
        block = ".self_attn." in name or ".cross_attn." in name or ".mlp." in name
        kinds[0 if table else 1 if block and parameter.ndim == 2 else 2].append(parameter)
    return kinds


class Optimizer:
    """The optimizer of a run, by the recipe: `step(multiplier)` applies one global step's gradients."""

    def __init__(self, model: nn.Module, config: TrainingConfig, dtype: torch.dtype) -> None:
        self.config = config
        tables, matrices, rest = kinds(model)
        if config.optimizer == "adamw":
            matrices, rest = [], matrices + rest
        self.muon = Muon(matrices, config.momentum, config.weight_decay, dtype) if matrices else None
        rates = (config.embedding_learning_rate or config.learning_rate, config.learning_rate)
        groups = [{"params": p, "lr": r, "top": r} for p, r in zip((tables, rest), rates, strict=True) if p]
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(groups, betas=betas, weight_decay=config.weight_decay, fused=True)

    def step(self, multiplier: float) -> None:
        """Update the weights with the schedule's multiplier, then clear the gradients."""
        for group in self.adamw.param_groups:
            group["lr"] = group["top"] * multiplier
        self.adamw.step()
        self.adamw.zero_grad()
        if self.muon:
            self.muon.step(self.config.learning_rate * multiplier)
            self.muon.zero_grad()

    def state(self) -> dict[str, Tensor]:
        """All state as named tensors."""
        tensors = {f"muon.{i}": b for i, b in enumerate(self.muon.buffers)} if self.muon else {}
        for index, state in self.adamw.state_dict()["state"].items():
            tensors |= {f"adamw.{index}.{key}": value for key, value in state.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        if self.muon:
            for index, buffer in enumerate(self.muon.buffers):
                buffer.copy_(tensors[f"muon.{index}"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, number, *key = name.split(".")
            if kind == "adamw":
                state.setdefault(int(number), {})[key[0]] = tensor
        self.adamw.load_state_dict({"state": state, "param_groups": self.adamw.state_dict()["param_groups"]})
