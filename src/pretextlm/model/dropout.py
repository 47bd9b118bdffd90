"""Dropout that is drawn for each token by itself (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

What is dropped is a function of the token's key, the layer and the number, not of a generator's state: so it is the
same however a step is cut, on any number of processes, when blocks are computed twice, and after a resume.

Each number has 16 of the bits of splitmix64 (counter_rng.py): it is dropped where they are below 65,536 times the rate.

Axis letters: B rows, T positions, D hidden_size, W words of four numbers each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pretextlm import counter_rng

LEVELS = 1 << 16
SITES = 4
"""Places in a block where something is dropped, at most."""


def signed(word: int) -> int:
    """A 64-bit word as torch has it."""
    word %= 1 << 64
    return word - (1 << 64) if word >> 63 else word


GOLDEN = int(counter_rng.GOLDEN)
_MIX_1, _MIX_2 = signed(int(counter_rng.MIX_1)), signed(int(counter_rng.MIX_2))
_SITE = tuple(signed((site << 32) * GOLDEN) for site in range(SITES))


class Noise(NamedTuple):
    """What is dropped of a row's hidden states.

    Attributes:
        keys_BT: int64 key of each token.
        words_W: int64, what tells the numbers of a token apart.
        least: of a number's 16 bits, read as signed, for it to stay.
        scale: by which what stays is multiplied, so that the mean is kept.
    """

    keys_BT: Tensor
    words_W: Tensor
    least: int
    scale: float

    @classmethod
    def of(cls, keys_BT: Tensor, width: int, rate: float) -> Noise:
        """For hidden states of this width. The rate is rounded to a 65,536th."""
        dropped = min(round(rate * LEVELS), LEVELS - 1)
        words_W = torch.arange(1, -(-width // 4) + 1, device=keys_BT.device) * signed(GOLDEN)
        return cls(keys_BT, words_W, dropped - LEVELS // 2, LEVELS / (LEVELS - dropped))

    def of_layer(self, layer: int) -> Noise:
        """Of the block with this number; 0 is the embedding."""
        return self._replace(keys_BT=self.keys_BT + signed((layer << 40) * GOLDEN))


def dropped(x_BTD: Tensor, noise: Noise | None, site: int = 0) -> Tensor:
    """x with some numbers 0 and the others scaled; as it is where there is no noise."""
    if noise is None:
        return x_BTD
    stays_BTD = _bits(noise.keys_BT + _SITE[site], noise.words_W)[..., : x_BTD.size(-1)] >= noise.least
    return torch.where(stays_BTD, x_BTD * noise.scale, 0)


def _bits(keys_BT: Tensor, words_W: Tensor) -> Tensor:
    """(B, T, 4·W) int16 words of splitmix64, in place: each pass over memory counts."""
    with torch.no_grad():
        out = keys_BT[..., None] + words_W
        scratch = torch.empty_like(out)
        for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
            # A logical shift, of which torch has the arithmetical one alone.
            torch.bitwise_right_shift(out, shift, out=scratch)
            scratch.bitwise_and_((1 << (64 - shift)) - 1)
            out.bitwise_xor_(scratch)
            if factor != 1:
                out.mul_(factor)
        return out.view(torch.int16)
