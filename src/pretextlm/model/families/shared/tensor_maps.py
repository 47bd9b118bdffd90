"""Maps between the names of a published model's tensors and those of our parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pretextlm.model.config import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

LAYER = "{i}"


@dataclass(frozen=True)
class TensorMap:
    """One tensor of a checkpoint and the one or several parameters of ours that it contains.

    Attributes:
        ours: Names of our parameters; several are concatenated along the first dimension.
        theirs: Hugging Face's name; {i} in both is the number of each layer of the stack that our name begins with.
        transposed: Theirs is (in, out) where ours is (out, in).
        unsqueezed: Theirs is (1, …) where ours is (…).
        swapped_halves: In every head of so many rows, theirs has the second half of the rows first; 0 for the same
            order.
    """

    ours: tuple[str, ...]
    theirs: str
    transposed: bool = False
    unsqueezed: bool = False
    swapped_halves: int = 0

    def expanded(self, config: ModelConfig) -> Iterator[TensorMap]:
        """Yields one map for each layer."""
        if LAYER not in self.ours[0]:
            yield self
            return
        stack: Literal["encoder", "decoder"] = "encoder" if self.ours[0].startswith("encoder") else "decoder"
        for i in range(1 if config.share_layers else config.layers(stack)):
            names = tuple(name.replace(LAYER, str(i)) for name in self.ours)
            yield replace(self, ours=names, theirs=self.theirs.replace(LAYER, str(i)))

    def reordered(self, rows: Tensor) -> Tensor:
        """Change the order of rows from ours to theirs or back, which is the same exchange of halves.

        Rows 0 1 2 3 4 5 6 7 of two heads of width 4 become 2 3 0 1 6 7 4 5.

        Args:
            rows: (heads · width, …).
        """
        if not self.swapped_halves:
            return rows
        return rows.reshape(-1, 2, self.swapped_halves // 2, *rows.shape[1:]).flip(1).reshape(rows.shape)


def same(ours: str, theirs: str) -> TensorMap:
    """Map a tensor that only has another name."""
    return TensorMap((ours,), theirs)


def layer(ours: str, theirs: str, bias: bool) -> list[TensorMap]:
    """Map the weight, and the bias where there is one, of a module."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]
