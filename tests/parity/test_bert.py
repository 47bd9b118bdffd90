"""BERT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parity.families import imported, our_logits, randomised, round_trip, their_logits

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

IDS = np.random.default_rng(0).integers(5, 90, (3, 12))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    config = transformers.BertConfig(
        vocab_size=90,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=20,
        type_vocab_size=3,
        hidden_act="gelu_new",
        layer_norm_eps=1e-3,
    )
    model = randomised(transformers.BertForMaskedLM(config))
    directory = tmp_path_factory.mktemp("bert")
    ours, found = imported(model, directory)
    return model, ours, found, directory


def test_nothing_is_missing_and_nothing_is_left(both):
    assert both[2].missing == []
    assert both[2].left == []


def test_padded_rows_have_the_same_logits(both):
    model, ours, *_ = both
    lengths = np.array([12, 7, 1])
    mask = (np.arange(12) < lengths[:, None]).astype(int)
    types = np.random.default_rng(1).integers(0, 3, (3, 12))
    expected = their_logits(model, input_ids=IDS, attention_mask=mask, token_type_ids=types)
    found = our_logits(ours, input_ids=IDS, segment_ids=mask - 1, token_type_ids=types)
    torch.testing.assert_close(found[mask == 1], expected[mask == 1], atol=1e-4, rtol=1e-4)


def test_packed_documents_have_the_logits_they_have_apart(both):
    model, ours, *_ = both
    row = IDS[:1]
    found = our_logits(ours, input_ids=row, segment_ids=[[0] * 5 + [1] * 7], position_ids=[[*range(5), *range(7)]])
    for part in (slice(0, 5), slice(5, 12)):
        torch.testing.assert_close(found[:, part], their_logits(model, input_ids=row[:, part]), atol=1e-4, rtol=1e-4)


def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(both):
    model, ours, _, directory = both
    again = round_trip(ours, model, directory)
    torch.testing.assert_close(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))
