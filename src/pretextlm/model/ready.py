"""Weights laid out for writing: rounded once, and on a CPU ordered as its matrix products read them.

    with ready_to_write(model, torch.bfloat16, rows=16):
        generate(model, vocabulary, prompts, settings, dtype=torch.bfloat16)

A token needs each weight once, so its cost is that of reading them. Training rounds its fp32 weights as it uses them;
writing would do so for every token. The copy takes memory of its own, and is thrown away at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pretextlm.model.blocks import Linear
from pretextlm.model.transformer import Transformer

FEW = 4
"""Rows from which on ordered fp32 weights are faster; fewer read them as they are at the same speed."""


class Ready:
    """A matrix and its bias in one type, for `rows` rows at a time or any other number.

    Args:
        weight: (out, in).
        bias: (out,).
        dtype: of the activations that it will multiply.
        rows: how many there will be in most cases.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, rows: int) -> None:
        self.dtype = dtype
        self._weight = weight.detach().to(dtype)
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._ordered = can_order(self._weight) and (dtype == torch.bfloat16 or rows >= FEW)
        if self._ordered:
            self._weight = _kernels()._reorder_linear_weight(self._weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._ordered:
            return functional.linear(x, self._weight, self._bias)
        out: Tensor = _kernels()._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return out


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
    layers = [module for module in model.modules() if isinstance(module, Linear) and module is not model.lm_head]
    with torch.inference_mode():
        for layer in layers:
            layer.ready = Ready(layer.weight, layer.bias, dtype, rows)
        model.ready_head = Ready(model.head_weight, model.head_layers.bias, dtype, rows)
    try:
        yield
    finally:
        model.ready_head = None
        for layer in layers:
            layer.ready = None


def can_order(weight: Tensor) -> bool:
    """Whether this machine has kernels that read an ordered matrix of this type."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(_kernels()._is_mkldnn_bf16_supported())
    )


def _kernels() -> Any:
    return torch.ops.mkldnn
