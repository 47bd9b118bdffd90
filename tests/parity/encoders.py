"""What the parity tests of all encoders ask: padded rows, packed rows, and what is written back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.parity.families import our_logits, round_trip, their_logits

IDS = np.random.default_rng(0).integers(5, 90, (3, 12))
MASK = (np.arange(12) < np.array([12, 7, 1])[:, None]).astype(int)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def padded_rows_agree(model: Any, ours: Any, types: int = 0) -> None:
    """Rows of different length, with token types at random where there are `types` of them."""
    more = {"token_type_ids": np.random.default_rng(1).integers(0, types, IDS.shape)} if types else {}
    expected = their_logits(model, input_ids=IDS, attention_mask=MASK, **more)
    found = our_logits(ours, input_ids=IDS, segment_ids=MASK - 1, **more)
    torch.testing.assert_close(found[MASK == 1], expected[MASK == 1], **CLOSE)


def packed_documents_agree(model: Any, ours: Any) -> None:
    """Two documents in one row, and each by itself."""
    row = IDS[:1]
    found = our_logits(ours, input_ids=row, segment_ids=[[0] * 5 + [1] * 7], position_ids=[[*range(5), *range(7)]])
    for part in (slice(0, 5), slice(5, 12)):
        torch.testing.assert_close(found[:, part], their_logits(model, input_ids=row[:, part]), **CLOSE)


def written_back_agrees(model: Any, ours: Any, directory: Path) -> None:
    """Loaded by transformers without a missing or unexpected key, it is the same model."""
    again = round_trip(ours, model, directory)
    assert torch.equal(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))
