"""Weights laid out for writing: rounded once, and on a CPU ordered as its matrix products read them.

    with ready_to_write(model, torch.bfloat16, rows=16):
        generate(model, vocabulary, prompts, settings, dtype=torch.bfloat16)

A token needs each weight once, so its cost is that of reading them. Training rounds its fp32 weights as it uses them;
writing would do so for every token. Matrices of one input lie as one. The copy takes memory of its own, and is thrown
away at the end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from pretextlm.model.blocks import FeedForward, Linear, SelfAttention
from pretextlm.model.coarse import CoarseHead
from pretextlm.model.ordered import Ready
from pretextlm.model.transformer import Transformer


@contextmanager
def ready_to_write(model: Transformer, dtype: torch.dtype = torch.float32, rows: int = 1) -> Iterator[None]:
    """The model's weights laid out anew until the end; they must not be changed or trained meanwhile.

    Args:
        dtype: of the activations, as in `generate`.
        rows: how many texts are written side by side, about.
    """
    if model.ready_head is not None:
        yield
        return
    modules = list(model.modules())
    wide = [module for module in modules if isinstance(module, SelfAttention | FeedForward) and _joins(module)]
    joined = {id(layer) for module in wide for layer in module.side_by_side} | {id(model.lm_head)}
    layers = [module for module in modules if isinstance(module, Linear) and id(module) not in joined]
    head = model.head_weight, model.head_layers.bias
    with torch.inference_mode():
        for layer in layers:
            layer.ready = Ready(layer.weight, layer.bias, dtype, rows)
        for module in wide:
            module.joined = Ready(*_as_one(module.side_by_side), dtype, rows)
        model.ready_head = Ready(*head, dtype, rows)
        if dtype == torch.float32 and not model.config.logit_softcap and CoarseHead.pays(*head):
            model.coarse_head = CoarseHead(model.head_weight, rows)
    try:
        yield
    finally:
        model.ready_head = model.coarse_head = None
        for layer in layers:
            layer.ready = None
        for module in wide:
            module.joined = None


def _joins(module: SelfAttention | FeedForward) -> bool:
    layers = module.side_by_side
    return len(layers) > 1 and len({layer.bias is None for layer in layers}) == 1


def _as_one(layers: Sequence[Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of one matrix that makes what the others make, one after the other."""
    biases: list[Tensor] = [layer.bias for layer in layers if layer.bias is not None]
    return torch.cat([layer.weight for layer in layers]), torch.cat(biases) if biases else None
