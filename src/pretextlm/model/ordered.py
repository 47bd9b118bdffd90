"""A matrix laid out for multiplying a few rows: in the activations' type, and on a CPU in its kernels' order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

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
        self._ordered = can_order(weight.device, dtype) and (dtype == torch.bfloat16 or rows >= FEW)
        if self._ordered:
            self._weight = _kernels()._reorder_linear_weight(self._weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._ordered:
            return functional.linear(x, self._weight, self._bias)
        out: Tensor = _kernels()._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return out


def can_order(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine has kernels that read an ordered matrix of this type."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(_kernels()._is_mkldnn_bf16_supported()))


def _kernels() -> Any:
    return torch.ops.mkldnn
