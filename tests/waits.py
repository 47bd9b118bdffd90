"""Operations whose result the host needs before it can go on: on a GPU, each of them drains the queue of work."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {"nonzero", "_local_scalar_dense", "equal", "masked_select", "bincount", "_unique2", "repeat_interleave"}


class Waits(TorchDispatchMode):
    """Lists these operations while it is entered.

    Indices of booleans are among them, because they have to be counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if name in WAITS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))
