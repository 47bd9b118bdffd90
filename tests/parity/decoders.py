"""What every family of decoders promises: one class of tests, of which each family's file makes its own."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.parity.families import cached_logits, imported, our_logits, randomised, round_trip, their_logits

IDS = np.random.default_rng(0).integers(5, 90, (3, 14))
SMALL: dict[str, Any] = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


class DecoderParity:
    """Padded, packed and cached rows as transformers computes them, and the same bytes back.

    Class attributes: `kind`, transformers' model class; `values`, of its configuration.
    """

    kind: ClassVar[str]
    values: ClassVar[dict[str, Any]]

    @pytest.fixture(scope="class")
    @classmethod
    def both(cls, tmp_path_factory):
        transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")
        kind = getattr(transformers, cls.kind)
        config = kind.config_class(**SMALL, **cls.values)
        config._attn_implementation = "eager"
        model = randomised(kind(config))
        directory = tmp_path_factory.mktemp("theirs")
        ours, found = imported(model, directory)
        return model, ours, found, directory

    def test_nothing_is_missing_and_nothing_is_left(self, both):
        assert both[2].missing == []
        assert both[2].left == []

    def test_padded_rows_have_the_same_logits(self, both):
        model, ours, *_ = both
        mask = (np.arange(14) < np.array([[14], [9], [1]])).astype(int)
        expected = their_logits(model, input_ids=IDS, attention_mask=mask)
        found = our_logits(ours, input_ids=IDS, segment_ids=mask - 1, attention="causal")
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found[mask == 1], expected[mask == 1], atol=1e-4, rtol=1e-4)

    def test_packed_documents_have_the_logits_they_have_apart(self, both):
        model, ours, *_ = both
        row, packed = IDS[:1], {"segment_ids": [[0] * 5 + [1] * 9], "position_ids": [[*range(5), *range(9)]]}
        found = our_logits(ours, input_ids=row, attention="causal", **packed)
        for part in (slice(0, 5), slice(5, 14)):
            expected = their_logits(model, input_ids=row[:, part])
            torch.testing.assert_close(found[:, part], expected, atol=1e-4, rtol=1e-4)

    def test_a_row_read_piece_by_piece_has_the_same_logits(self, both):
        model, ours, *_ = both
        found = cached_logits(ours, IDS[0].tolist(), [6, 7, 12])
        torch.testing.assert_close(found, their_logits(model, input_ids=IDS[:1])[0], atol=1e-4, rtol=1e-4)

    def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(self, both):
        model, ours, _, directory = both
        again = round_trip(ours, model, directory)
        again.config._attn_implementation = "eager"
        torch.testing.assert_close(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))
