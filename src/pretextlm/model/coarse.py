"""The likeliest token, found by reading a head's matrix in half as many bytes.

A head is read once for each token, and a vocabulary makes it the largest matrix. A bfloat16 copy gives coarse scores
and a bound of their error; only the few tokens that could be the likeliest within the bound are scored in fp32. So the
choice is that of the whole fp32 product, up to the order in which a sum is added up.

Axis letters: B rows, V vocab_size, D width, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pretextlm.model.ordered import Ready, can_order

SMALLEST = 2**22
"""Entries from which on the copy pays: smaller matrices stay in a processor's caches."""
MOST = 512
"""Candidates a row, up to which they are scored one by one."""
ROWS_AT_ONCE = 4096


class CoarseHead:
    """A bfloat16 copy of an fp32 head without bias, and how far its rows are from their originals.

    Args:
        weight_VD: the head's matrix, which is kept too.
    """

    def __init__(self, weight_VD: Tensor, rows: int = 1) -> None:
        self._weight_VD = weight_VD.detach()
        self._coarse = Ready(self._weight_VD, None, torch.bfloat16, rows)
        self._longest = self._farthest = 0.0
        for start in range(0, len(weight_VD), ROWS_AT_ONCE):
            part = self._weight_VD[start : start + ROWS_AT_ONCE]
            rounded = part.bfloat16().float()
            self._longest = max(self._longest, float(rounded.norm(dim=1).max()))
            self._farthest = max(self._farthest, float((part - rounded).norm(dim=1).max()))
        self._farthest += weight_VD.size(1) * 2.0**-23 * self._longest  # fp32 sums are off too

    @staticmethod
    def pays(weight_VD: Tensor, bias_V: Tensor | None) -> bool:
        """Whether the machine multiplies bfloat16 well and the matrix is large."""
        return bias_V is None and weight_VD.numel() >= SMALLEST and can_order(weight_VD.device, torch.bfloat16)

    def likeliest(self, x_BD: Tensor, constrain: Callable[[Tensor], Tensor]) -> Tensor | None:
        """(B,) ids of the largest scores; None where so many are close that the whole product is as well.

        Args:
            x_BD: fp32, as the matrix reads it.
            constrain: sets the scores (B, V) of tokens that must not come to -inf.
        """
        rounded_BD = x_BD.bfloat16()
        coarse_BV = constrain(self._coarse(rounded_BD).float())
        top_B1 = coarse_BV.amax(dim=1, keepdim=True)
        off_B1 = (x_BD - rounded_BD.float()).norm(dim=1, keepdim=True)
        error_B1 = self._farthest * x_BD.norm(dim=1, keepdim=True) + self._longest * off_B1
        # the top and a candidate may both be off, and both scores were rounded to 8 bits: by 1/256 each at most
        bound_B1 = top_B1 - 2.1 * error_B1 - top_B1.abs() / 64
        near = np.nonzero(coarse_BV.numpy() >= bound_B1.numpy())  # on a CPU several times as fast as torch's
        if len(near[0]) > MOST * len(x_BD) or not bool(bound_B1.isfinite().all()):
            return None
        rows_M, ids_M = map(torch.from_numpy, near)
        exact_M = (self._weight_VD[ids_M] * x_BD[rows_M]).sum(dim=1)
        best_B = torch.full_like(x_BD[:, 0], float("-inf")).scatter_reduce(0, rows_M, exact_M, "amax")
        first = exact_M == best_B[rows_M]
        nobody_B = torch.full_like(best_B, self._weight_VD.size(0), dtype=torch.int64)
        return nobody_B.scatter_reduce(0, rows_M[first], ids_M[first], "amin")
