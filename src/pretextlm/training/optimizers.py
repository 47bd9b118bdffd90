"""AdamW for embeddings, Muon for matrices: one optimizer to step, save and load, for replicated or sharded weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pretextlm.training.muon import Muon
from pretextlm.training.recipe import TrainingConfig
from pretextlm.training.sharded_checkpoint import is_sharded_tensor, local_shards


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Returns (embeddings and output head, matrices of the blocks, all others) among the trained parameters."""
    groups: tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]] = ([], [], [])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        table = parameter.ndim == 2 and ("embed" in name or "lm_head" in name)
        block = ".self_attn." in name or ".cross_attn." in name or ".mlp." in name
        groups[0 if table else 1 if block and parameter.ndim == 2 else 2].append(parameter)
    return groups


class Optimizer:
    """The optimizer of a run. `step(norm)` applies the clipped gradients of one global batch.

    Args:
        model: whose trained parameters are updated.
        config: of the recipe.
        dtype: of Muon's products.
        size: number of processes.
        scale: multiplier of a parameter's learning rate, by its name; for AdamW only.

    Attributes:
        learning_rate: of the next step.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        dtype: torch.dtype,
        size: int = 1,
        scale: Callable[[str], float] = lambda name: 1.0,
    ) -> None:
        self.config, self.learning_rate = config, config.learning_rate
        tables, matrices, rest = parameter_groups(model)
        if config.optimizer == "adamw":
            matrices, rest = [], matrices + rest
        self.muon = Muon(matrices, config.momentum, config.weight_decay, dtype, size) if matrices else None
        rates = (config.embedding_learning_rate or config.learning_rate, config.learning_rate)
        scales = {parameter: scale(name) for name, parameter in model.named_parameters()}
        by_rate: dict[tuple[int, float], list[nn.Parameter]] = {}
        for kind, parameters in enumerate((tables, rest)):
            for parameter in parameters:
                by_rate.setdefault((kind, rates[kind] * scales[parameter]), []).append(parameter)
        by_rate = by_rate or {(1, config.learning_rate): []}  # adapters alone are all matrices, which Muon has
        groups = [{"params": p, "lr": rate, "top": rate} for (_, rate), p in by_rate.items()]
        betas = (config.beta1, config.beta2)
        self.adamw = torch.optim.AdamW(groups, betas=betas, weight_decay=config.weight_decay, fused=True)

    def set_multiplier(self, multiplier: float) -> None:
        """Sets every learning rate to its peak times `multiplier`, the schedule's value for the next step."""
        self.learning_rate = self.config.learning_rate * multiplier
        for group in self.adamw.param_groups:
            group["lr"] = group["top"] * multiplier

    def step(self, norm: float = 0.0, scale: float = 1.0) -> None:
        """Updates the weights, then clears the gradients.

        Args:
            norm: global norm of the gradients without their scale; above `max_grad_norm`, they are scaled down to it.
            scale: of the loss that they are of, by which they are divided.
        """
        clipped = self.config.max_grad_norm > 0 and norm > self.config.max_grad_norm
        divisor = scale * (norm / self.config.max_grad_norm if clipped else 1.0)
        self._step_adamw(divisor)
        self.adamw.zero_grad()
        if self.muon:
            self.muon.step(self.learning_rate, divisor)
            self.muon.zero_grad()

    def _step_adamw(self, divisor: float) -> None:
        """Updates AdamW's parameters.

        Gradients are divided inside the fused kernel, which saves a pass over them.
        """
        gradients = [p.grad for group in self.adamw.param_groups for p in group["params"] if p.grad is not None]
        if divisor != 1.0 and gradients:
            if is_sharded_tensor(gradients[0]):  # the kernel does not accept a plain tensor as divisor of DTensors
                torch._foreach_div_(local_shards(gradients), divisor)
            else:
                self.adamw.grad_scale = torch.tensor(divisor, device=gradients[0].device)  # type: ignore[attr-defined]
        self.adamw.step()
        self.adamw.grad_scale = None  # type: ignore[attr-defined]

    def state(self) -> dict[str, Tensor]:
        """Returns the state as named tensors, with the same names at every step.

        AdamW has no state of a parameter before its first gradient, which some parameters get later than others because
        a batch does not use them; for those the initial state is returned. The tensors may be overwritten and passed to
        `load`.
        """
        tensors = {f"muon.{i}": b for i, b in enumerate(self.muon.state())} if self.muon else {}
        parameters = [p for group in self.adamw.param_groups for p in group["params"]]
        for index, parameter in enumerate(parameters):
            state = self.adamw.state.get(parameter) or _initial_state(parameter)
            tensors |= {f"adamw.{index}.{key}": value for key, value in state.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Loads a state.

        Args:
            tensors: as returned by `state`.
        """
        if self.muon:
            for index, buffer in enumerate(self.muon.buffers):
                buffer.copy_(local_shards([tensors[f"muon.{index}"]])[0])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, number, *key = name.split(".")
            if kind == "adamw":
                state.setdefault(int(number), {})[key[0]] = tensor
        self.adamw.load_state_dict({"state": state, "param_groups": self.adamw.state_dict()["param_groups"]})


def _initial_state(parameter: nn.Parameter) -> dict[str, Tensor]:
    """Returns AdamW's initial state of a parameter."""
    zeros = {name: torch.zeros_like(parameter.detach()) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros(())} | zeros
