"""mBART: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoder_decoders import (
    VOCABULARY,
    cached_decoding_agrees,
    logits,
    packed_documents_agree,
    padded_rows_agree,
)
from tests.parity.families import imported, randomised, round_trip

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    config = transformers.MBartConfig(
        vocab_size=VOCABULARY,
        d_model=24,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=3,
        decoder_attention_heads=3,
        encoder_ffn_dim=44,
        decoder_ffn_dim=44,
        max_position_embeddings=20,
        activation_function="relu",
        scale_embedding=True,
    )
    model = randomised(transformers.MBartForConditionalGeneration(config))
    model.final_logits_bias.copy_(torch.randn(1, VOCABULARY))
    directory = tmp_path_factory.mktemp("mbart")
    ours, found = imported(model, directory)
    return model, ours, found, directory


def test_nothing_is_missing_and_nothing_is_left(both):
    assert both[2].missing == []
    assert both[2].left == []


def test_padded_rows_have_the_same_logits(both):
    padded_rows_agree(*both[:2])


def test_packed_documents_have_the_logits_they_have_apart(both):
    packed_documents_agree(*both[:2])


def test_a_decoder_that_reads_piece_by_piece_has_the_same_logits(both):
    cached_decoding_agrees(*both[:2])


def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(both):
    model, ours, _, directory = both
    torch.testing.assert_close(logits(round_trip(ours, model, directory)), logits(model))
