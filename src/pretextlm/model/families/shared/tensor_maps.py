"""Maps between the names of a published model's tensors and those of our parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pretextlm.model.config import ModelConfig

LAYER = "{i}"


@dataclass(frozen=True)
class TensorMap:
    """One tensor of a checkpoint and the one or several parameters of ours that it contains.

    Attributes:
        ours: Names of our parameters; several are concatenated along the first dimension.
        theirs: Hugging Face's name; {i} in both is the number of each layer of the stack that our name begins with.
        transposed: Theirs is (in, out) where ours is (out, in).
        unsqueezed: Theirs is (1, …) where ours is (…).
    """

    ours: tuple[str, ...]
    theirs: str
    transposed: bool = False
    unsqueezed: bool = False

    def expanded(self, config: ModelConfig) -> Iterator[TensorMap]:
        """Yields one map for each layer."""
        if LAYER not in self.ours[0]:
            yield self
            return
        stack: Literal["encoder", "decoder"] = "encoder" if self.ours[0].startswith("encoder") else "decoder"
        for i in range(1 if config.share_layers else config.layers(stack)):
            names = tuple(name.replace(LAYER, str(i)) for name in self.ours)
            yield TensorMap(names, self.theirs.replace(LAYER, str(i)), self.transposed, self.unsqueezed)


def same(ours: str, theirs: str) -> TensorMap:
    """Map a tensor that only has another name."""
    return TensorMap((ours,), theirs)


def layer(ours: str, theirs: str, bias: bool) -> list[TensorMap]:
    """Map the weight, and the bias where there is one, of a module."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]
