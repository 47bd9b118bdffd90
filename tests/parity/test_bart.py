"""BART: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoder_decoders import VOCABULARY, EncoderDecoderParity
from tests.parity.families import imported, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.bart import Bart
from pretextlm.model.families.base import hf_config_values

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 44,
    "max_position_embeddings": 20,
    "activation_function": "gelu_new",
}


@pytest.fixture(scope="module", params=[True, False], ids=["scaled", "not scaled"])
def both(request, tmp_path_factory):
    config = transformers.BartConfig(**SHAPE, scale_embedding=request.param)
    model = randomised(transformers.BartForConditionalGeneration(config))
    model.final_logits_bias.copy_(torch.randn(1, VOCABULARY))
    directory = tmp_path_factory.mktemp("bart")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderDecoderParity):
    pass


def test_a_model_without_its_head_is_read_too(both, tmp_path):
    _, found = imported(both[0].model, tmp_path)
    assert found.missing == ["head_layers.bias"]
    assert found.left == []


@pytest.mark.parametrize(
    "change", [{"decoder_ffn_dim": 48}, {"decoder_attention_heads": 2}, {"tie_word_embeddings": False}]
)
def test_stacks_that_differ_in_more_than_layers_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        Bart().config_from_hf(SHAPE | change)


def test_a_shape_that_it_cannot_have_is_refused():
    config = Bart().config_from_hf(SHAPE)
    for change in ({"final_norm": True}, {"architecture": "encoder"}, {"tie_word_embeddings": False}):
        with pytest.raises(UserError, match=next(iter(change))):
            hf_config_values(Bart(), config.model_copy(update=change))


def test_the_decoder_starts_from_the_end_token():
    assert Bart.decoder_start == "eos"
