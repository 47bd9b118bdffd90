"""Longformer: windows, global tokens with projections of their own, and the same bytes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parity.families import imported, our_logits, randomised, round_trip, their_logits

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

IDS = np.random.default_rng(0).integers(5, 90, (3, 30))
LENGTHS = np.array([30, 17, 9])
MASK = (np.arange(30) < LENGTHS[:, None]).astype(int)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    config = transformers.LongformerConfig(
        vocab_size=90,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=60,
        type_vocab_size=2,
        attention_window=[4, 8, 4],
        layer_norm_eps=1e-3,
        pad_token_id=1,
    )
    model = randomised(transformers.LongformerForMaskedLM(config))
    directory = tmp_path_factory.mktemp("longformer")
    ours, found = imported(model, directory)
    return model, ours, found, directory


def theirs(model, ids, mask):
    first = np.zeros_like(ids)
    first[:, 0] = 1
    padded = np.where(mask == 1, ids, 1)
    return their_logits(model, input_ids=padded, attention_mask=mask, global_attention_mask=first)


def test_nothing_is_missing_and_nothing_is_left(both):
    assert both[2].missing == []
    assert both[2].left == []


def test_padded_rows_have_the_same_logits(both):
    found = our_logits(both[1], input_ids=IDS, segment_ids=MASK - 1)
    torch.testing.assert_close(found[MASK == 1], theirs(both[0], IDS, MASK)[MASK == 1], **CLOSE)


def test_packed_documents_have_the_logits_they_have_apart(both):
    row = IDS[:1]
    segments, positions = [[0] * 13 + [1] * 17], [[*range(13), *range(17)]]
    found = our_logits(both[1], input_ids=row, segment_ids=segments, position_ids=positions)
    for part in (slice(0, 13), slice(13, 30)):
        expected = theirs(both[0], row[:, part], np.ones_like(row[:, part]))
        torch.testing.assert_close(found[:, part], expected, **CLOSE)


def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(both):
    model, ours, _, directory = both
    again = round_trip(ours, model, directory)
    assert torch.equal(theirs(again, IDS, MASK), theirs(model, IDS, MASK))
