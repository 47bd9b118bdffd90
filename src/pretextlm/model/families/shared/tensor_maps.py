"""Maps between the names of a published model's tensors and those of our parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pretextlm.model.config import ModelConfig

LAYER = "{i}"


@dataclass(frozen=True)
class Map:
    """One tensor of theirs and the one or several of ours that it holds.

    Attributes:
        ours: names of our parameters; several lie one above the other (along the first dimension) in theirs.
        theirs: its name; {i} in both stands for each layer of the stack that our name begins with.
        transposed: theirs is (in, out) where ours is (out, in).
        lifted: theirs is (1, …) where ours is (…).
    """

    ours: tuple[str, ...]
    theirs: str
    transposed: bool = False
    lifted: bool = False

    def expanded(self, config: ModelConfig) -> Iterator[Map]:
        """One map for each layer."""
        if LAYER not in self.ours[0]:
            yield self
            return
        stack: Literal["encoder", "decoder"] = "encoder" if self.ours[0].startswith("encoder") else "decoder"
        for i in range(1 if config.share_layers else config.layers(stack)):
            names = tuple(name.replace(LAYER, str(i)) for name in self.ours)
            yield Map(names, self.theirs.replace(LAYER, str(i)), self.transposed, self.lifted)


def same(ours: str, theirs: str) -> Map:
    """A tensor that only has another name."""
    return Map((ours,), theirs)


def layer(ours: str, theirs: str, bias: bool) -> list[Map]:
    """Weight, and bias where there is one, of a module."""
    parts = ("weight", "bias") if bias else ("weight",)
    return [same(f"{ours}.{part}", f"{theirs}.{part}") for part in parts]
