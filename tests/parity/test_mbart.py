"""mBART: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoder_decoders import VOCABULARY, EncoderDecoderParity
from tests.parity.families import imported, randomised

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


class TestParity(EncoderDecoderParity):
    pass
