"""Dropout by a counter-based RNG (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).

Which numbers are dropped is a function of the token's key, the layer and the column, not of a generator's state: so it
is the same for any micro-batch size and number of processes, when a block is computed again for its gradient
(checkpointing), and after a resume.

Every number has 16 bits of its own. splitmix64 (counter_rng.py) turns (key + layer + place, column // 4) into words of
64 bits, each of which serves four columns; a number is dropped where its 16 bits are below 65,536 · rate. For a rate of
0.1 the threshold is 6554, so the rate is in fact 6554 / 65536 = 0.100006, and the numbers that are kept are scaled by
65536 / 58982.

Axis letters: B rows, T positions, D hidden_size, W words of four numbers each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pretextlm import counter_rng

LEVELS = 1 << 16
"""Values that 16 bits can have."""
SITES = 4
"""Places in a block where dropout is applied, at most."""


def signed(word: int) -> int:
    """Convert an unsigned 64-bit word to the int64 of the same bits, the only 64-bit integer that torch has.

    Returns:
        The word itself below 2⁶³, else the word minus 2⁶⁴: 0xFFFF_FFFF_FFFF_FFFF → -1.
    """
    word %= 1 << 64
    return word - (1 << 64) if word >> 63 else word


GOLDEN = int(counter_rng.GOLDEN)
_MIX_1, _MIX_2 = signed(int(counter_rng.MIX_1)), signed(int(counter_rng.MIX_2))
# Counters of a token's stream are (layer << 40) + (site << 32) + word, and splitmix64 steps by GOLDEN from one counter
# to the next. So words of different layers, sites and columns never come from the same state.
_SITE = tuple(signed((site << 32) * GOLDEN) for site in range(SITES))


class DropoutKeys(NamedTuple):
    """The random streams of a row's dropout.

    Attributes:
        keys_BT: Key of each token, int64.
        words_W: Steps of the stream, int64: one for every four columns.
        threshold: Numbers whose 16 bits, read as a signed integer, are below it are dropped.
        scale: Factor of the numbers that are kept, so that the mean stays the same.
    """

    keys_BT: Tensor
    words_W: Tensor
    threshold: int
    scale: float

    @classmethod
    def create(cls, keys_BT: Tensor, width: int, rate: float) -> DropoutKeys:
        """Build the streams of hidden states of this width.

        Args:
            keys_BT: Key of each token, int64 (data/dropout_keys.py).
            width: Columns of the hidden states.
            rate: Dropout rate, rounded to a multiple of 1/65,536.
        """
        dropped = min(round(rate * LEVELS), LEVELS - 1)
        words_W = torch.arange(1, -(-width // 4) + 1, device=keys_BT.device) * signed(GOLDEN)
        # int16 runs from -32768, so "the lowest `dropped` values" end at dropped - 32768.
        return cls(keys_BT, words_W, dropped - LEVELS // 2, LEVELS / (LEVELS - dropped))

    def for_layer(self, layer: int) -> DropoutKeys:
        """Select the streams of a layer.

        Args:
            layer: Number of the block, from 1 on; the embedding is 0.
        """
        return self._replace(keys_BT=self.keys_BT + signed((layer << 40) * GOLDEN))


def dropout(x_BTD: Tensor, keys: DropoutKeys | None, site: int = 0) -> Tensor:
    """Apply dropout.

    Args:
        x_BTD: Hidden states.
        keys: Random streams of the layer; None for no dropout.
        site: Which place of the block this is, from 0 to 3.

    Returns:
        `x_BTD` with some numbers zero and the others scaled; `x_BTD` itself without keys.
    """
    if keys is None:
        return x_BTD
    kept_BTD = random_int16(keys.keys_BT + _SITE[site], keys.words_W)[..., : x_BTD.size(-1)] >= keys.threshold
    return torch.where(kept_BTD, x_BTD * keys.scale, 0)


def random_int16(keys_BT: Tensor, words_W: Tensor) -> Tensor:
    """Compute splitmix64's output for every word of every token; in place, because each pass over memory counts.

    Args:
        keys_BT: int64 key of each token.
        words_W: int64 steps of the stream.

    Returns:
        (B, T, 4·W) uniform int16.
    """
    with torch.no_grad():
        out = keys_BT[..., None] + words_W
        scratch = torch.empty_like(out)
        for shift, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
            # splitmix64 shifts unsigned words; torch's shift of int64 copies the sign into the upper bits instead.
            # The mask clears those, e.g. -1 >> 30 is -1, and & (2³⁴ - 1) makes it 2³⁴ - 1, the unsigned result.
            torch.bitwise_right_shift(out, shift, out=scratch)
            scratch.bitwise_and_((1 << (64 - shift)) - 1)
            out.bitwise_xor_(scratch)
            if factor != 1:
                out.mul_(factor)
        return out.view(torch.int16)
