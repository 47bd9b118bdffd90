"""Masks are built from the batch on the host: a device is not waited for, neither per batch nor per layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.builders import make_model
from tests.waits import Waits

from pretextlm.batch import Batch
from pretextlm.model.model_inputs import prepare

CPU = torch.device("cpu")
SEGMENTS = np.repeat([[0, 1, 2, -1], [0, 0, 1, 1]], 16, axis=1).astype(np.int32)
POSITIONS = np.stack([np.tile(np.arange(16), 4), np.tile(np.arange(32), 2)]).astype(np.int32)


@pytest.mark.parametrize(
    "attention",
    [
        {"sliding_windows": [8]},
        {"sliding_windows": [8, 0], "global_tokens": 1, "global_projections": True},
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_a_window_with_global_tokens_waits_for_nothing(attention, packed):
    model = make_model(architecture="encoder", attention=attention)
    ids = np.ones((2, 64), dtype=np.int32)
    given = {"segment_ids": SEGMENTS, "position_ids": POSITIONS} if packed else {}
    with Waits() as waits:
        inputs = prepare(Batch(ids, attention="bidirectional", **given), model.config, CPU, torch.float32)
        model(inputs).hidden_BTD.sum().backward()
    assert waits.found == []


def test_block_sparse_attention_waits_for_nothing():
    """On the meta device, which has shapes and no values, whatever needs a value fails."""
    sparse = {"block_size": 2, "num_random_blocks": 1, "sample_random_blocks": True}
    model = make_model(architecture="encoder", attention=sparse).to("meta")
    batch = Batch(np.ones((2, 64), dtype=np.int32), SEGMENTS, POSITIONS, attention="bidirectional")
    hidden = model(prepare(batch, model.config, torch.device("meta"), torch.float32)).hidden_BTD
    hidden.sum().backward()
    assert hidden.shape == (2, 64, 32)
