"""mT5: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoder_decoders import VOCABULARY, EncoderDecoderParity
from tests.parity.families import imported, randomised

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")


def built(own_head):
    config = transformers.MT5Config(
        vocab_size=VOCABULARY,
        d_model=24,
        d_kv=7,
        d_ff=44,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        relative_attention_num_buckets=12,
        relative_attention_max_distance=10,
        layer_norm_epsilon=1e-3,
        feed_forward_proj="gated-gelu" if own_head else "gated-silu",
    )
    model = transformers.MT5ForConditionalGeneration(config)
    if own_head:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, 24))
    return randomised(model)


@pytest.fixture(scope="module", params=[True, False], ids=["a head of its own", "one table"])
def both(request, tmp_path_factory):
    model = built(request.param)
    directory = tmp_path_factory.mktemp("mt5")
    ours, found = imported(model, directory)
    assert ours.config.tie_word_embeddings == (not request.param)
    return model, ours, found, directory


class TestParity(EncoderDecoderParity):
    pass
