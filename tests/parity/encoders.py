"""What the parity tests of all encoders ask: padded rows, packed rows, and what is written back."""

from __future__ import annotations

import numpy as np
import torch
from tests.parity.families import our_logits, round_trip, their_logits

IDS = np.random.default_rng(0).integers(5, 90, (3, 12))
MASK = (np.arange(12) < np.array([12, 7, 1])[:, None]).astype(int)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


class EncoderParity:
    """Tests of a fixture `both`: (theirs, ours, what the import found, its directory)."""

    def test_nothing_is_missing_and_nothing_is_left(self, both):
        assert both[2].missing == []
        assert both[2].left == []

    def test_padded_rows_have_the_same_logits(self, both):
        """Rows of different length, with token types at random where there are any."""
        model, ours, *_ = both
        types = ours.config.type_vocab_size
        more = {"token_type_ids": np.random.default_rng(1).integers(0, types, IDS.shape)} if types else {}
        expected = their_logits(model, input_ids=IDS, attention_mask=MASK, **more)
        found = our_logits(ours, input_ids=IDS, segment_ids=MASK - 1, **more)
        torch.testing.assert_close(found[MASK == 1], expected[MASK == 1], **CLOSE)

    def test_packed_documents_have_the_logits_they_have_apart(self, both):
        model, ours, *_ = both
        row = IDS[:1]
        found = our_logits(ours, input_ids=row, segment_ids=[[0] * 5 + [1] * 7], position_ids=[[*range(5), *range(7)]])
        for part in (slice(0, 5), slice(5, 12)):
            torch.testing.assert_close(found[:, part], their_logits(model, input_ids=row[:, part]), **CLOSE)

    def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(self, both):
        model, ours, _, directory = both
        again = round_trip(ours, model, directory)
        assert torch.equal(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))
