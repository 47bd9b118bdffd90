"""Random bits by key: the same on every device, compiled or not, and so are the masks of dropout."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.gpu.isolation import item

from pretextlm.counter_rng import GOLDEN, CounterRNG, mix
from pretextlm.model.dropout import DropoutKeys, dropout, random_int16

SECTION = "3 random bits"
WIDTH = 768


def keys() -> np.ndarray:
    return CounterRNG.of(1, 0, np.arange(8)).bits(0, 128)


def streams(device: str) -> DropoutKeys:
    return DropoutKeys.create(torch.from_numpy(keys().view(np.int64)).to(device), WIDTH, 0.1)


@item(SECTION, cases=["eager", "compiled"])
def bits_are_numpy_s(device: str, case: str) -> str:
    one = streams(device)
    function = torch.compile(random_int16) if case == "compiled" else random_int16
    found = function(one.keys_BT, one.words_W).cpu().numpy()
    counters = np.arange(1, WIDTH // 4 + 1, dtype=np.uint64) * GOLDEN
    wanted = mix(keys()[..., None] + counters - GOLDEN).view(np.int16)
    assert np.array_equal(found, wanted), f"{np.mean(found != wanted):.1%} of the numbers differ"
    return f"{found.size:,} numbers are equal"


@item(SECTION, cases=["eager", "compiled"])
def masks_are_the_cpu_s(device: str, case: str) -> str:
    function = torch.compile(dropout) if case == "compiled" else dropout
    for layer in (1, 11):
        x = torch.ones(8, 128, WIDTH)
        wanted = dropout(x, streams("cpu").for_layer(layer), 1)
        found = function(x.to(device), streams(device).for_layer(layer), 1).cpu()
        assert torch.equal(found == 0, wanted == 0), "another mask"
        torch.testing.assert_close(found, wanted)
    return f"{float((wanted == 0).float().mean()):.4f} are dropped"
