"""Importance scores of attention heads and feed-forward channels for pruning.

By gradient: the sensitivity of the loss to a mask on the unit's output, |Σ output · ∂loss/∂output| over the tokens of a
row, summed over rows (Michel et al. 2019, https://arxiv.org/abs/1905.10650; for channels, Molchanov et al. 2017,
https://arxiv.org/abs/1611.06440). It is computed on rows of the training split, so that the held-out loss stays an
unbiased measure.

By weights: the product of the norms of the unit's input and output weights: ‖V‖·‖O‖ of a head, ‖up‖·‖down‖ of a
channel, times ‖gate‖ if it is gated. A unit that cannot change the output has score 0. It needs no text.

Axis letters: B rows, T positions, H heads, E width of a head, F channels, U units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pretextlm.batch import Batch
from pretextlm.compression.structured import ATTENTION, FEED_FORWARD, Heads
from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.protocol import TrainingObjective
from pretextlm.training.forward import Forward

Importance = Literal["gradient", "weights"]


def by_weights(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Returns scores (U,) of each attention and (F,) of each feed-forward layer, from the weights alone."""
    unit, width = Heads.of(config), config.head_dim
    found = {}
    for name in _parts(weights, ATTENTION.fullmatch):
        out_HE = weights[f"{name}.o_proj.weight"].pow(2).sum(0).view(-1, width)
        value_KE = weights[f"{name}.v_proj.weight"].pow(2).sum(1).view(-1, width)
        out_H, value_K = out_HE.sum(1).sqrt(), value_KE.sum(1).sqrt()
        value_H = value_K.repeat_interleave(config.num_attention_heads // config.num_key_value_heads)
        found[name] = (out_H * value_H).view(unit.units, unit.queries).sum(1)
    for name in _parts(weights, FEED_FORWARD.fullmatch):
        score_F = weights[f"{name}.up_proj.weight"].norm(dim=1) * weights[f"{name}.down_proj.weight"].norm(dim=0)
        gate = weights.get(f"{name}.gate_proj.weight")
        found[name] = score_F if gate is None else score_F * gate.norm(dim=1)
    return found


def by_gradient(model: Transformer, objective: TrainingObjective, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Returns scores of the same shapes from the gradient of the loss on these batches."""
    unit = Heads.of(model.config)
    found: dict[str, Tensor] = {}
    handles = []

    def add(name: str, felt_BTU: Tensor) -> None:
        felt_U = felt_BTU.sum(1).abs().sum(0).cpu()
        found[name] = found[name] + felt_U if name in found else felt_U

    def watch(name: str, units: int, module: nn.Module, inputs: tuple[Tensor]) -> None:
        output, seen = inputs[0], inputs[0].detach()
        shape = (*seen.shape[:-1], units, -1)
        if output.requires_grad:
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda grad: add(name, (seen * grad).view(shape).sum(-1))
            )

    for name, module in model.named_modules():
        out: nn.Module | None = None
        if ATTENTION.fullmatch(name):
            out, units = module.get_submodule("o_proj"), unit.units
        elif FEED_FORWARD.fullmatch(name):
            out, units = module.get_submodule("down_proj"), model.config.intermediate_size
        if out is not None:
            handles.append(out.register_forward_pre_hook(partial(watch, name, units)))
    try:
        _backward(model, objective, batches)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    return found


def _backward(model: Transformer, objective: TrainingObjective, batches: Sequence[Batch]) -> None:
    """Back-propagate the loss over all batches: each term's sum divided by its count over all of them."""
    counts: dict[str, int] = {}
    for batch in batches:
        for name, count in objective.counts(batch).items():
            counts[name] = counts.get(name, 0) + count
    forward = Forward(model, objective, model.embed_tokens.weight.device, torch.float32)
    for batch in batches:
        terms = objective.step(forward, batch)
        losses = [term.coefficient * term.total / max(1, counts[name]) for name, term in terms.items()]
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


def _parts(weights: Mapping[str, Tensor], matches: Callable[[str], Any]) -> list[str]:
    """Returns the names of the matching modules, each once."""
    modules = (name.rsplit(".", 2)[0] for name in weights)
    return [name for name in dict.fromkeys(modules) if matches(name)]
