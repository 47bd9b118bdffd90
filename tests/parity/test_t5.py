"""T5 1.0 and 1.1: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoder_decoders import CLOSE, SOURCES, VOCABULARY, EncoderDecoderParity
from tests.parity.families import imported, our_states, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values, weights_from_hf
from pretextlm.model.families.t5 import T5

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": VOCABULARY,
    "d_model": 24,
    "d_kv": 10,
    "d_ff": 44,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
    "layer_norm_epsilon": 1e-3,
}


def built(version):
    """1.0: ReLU, one table. 1.1: gated, a head of its own."""
    if version == "1.0":
        return randomised(transformers.T5ForConditionalGeneration(transformers.T5Config(**SHAPE)))
    config = transformers.T5Config(**SHAPE, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = transformers.T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.empty(VOCABULARY, SHAPE["d_model"]))
    return randomised(model)


@pytest.fixture(scope="module", params=["1.0", "1.1"])
def both(request, tmp_path_factory):
    model = built(request.param)
    directory = tmp_path_factory.mktemp("t5")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderDecoderParity):
    pass


def test_the_encoder_alone_has_the_same_states(both, tmp_path):
    whole = both[0]
    model = transformers.T5EncoderModel(whole.config)
    model.load_state_dict(whole.state_dict(), strict=False)
    model.config.architectures = ["T5EncoderModel"]
    ours, found = imported(model.eval(), tmp_path)
    assert (ours.decoder, found.missing, found.left) == (None, [], [])
    with torch.inference_mode():
        expected = model(input_ids=torch.as_tensor(SOURCES)).last_hidden_state
    torch.testing.assert_close(our_states(ours, input_ids=SOURCES), expected, **CLOSE)


def test_values_of_the_first_releases_are_read(both):
    values = {**SHAPE, "architectures": ["T5ForConditionalGeneration"]}
    del values["relative_attention_max_distance"]
    first = T5().config_from_hf(values)
    assert (first.feed_forward.activation, first.head.scale) == ("relu", 24**-0.5)
    later = T5().config_from_hf(values | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False})
    assert (later.tie_word_embeddings, later.head.scale, later.positions.max_distance) == (False, 1.0, 128)


def test_a_copy_of_the_table_is_left_out_and_another_table_is_refused(both):
    config = T5().config_from_hf(SHAPE)
    table = torch.randn(VOCABULARY, 24)
    theirs = {"shared.weight": table, "lm_head.weight": table.clone(), "encoder.embed_tokens.weight": table.clone()}
    shapes = {"embed_tokens.weight": table.shape}
    assert weights_from_hf(T5(), config, theirs, shapes).left == []
    assert weights_from_hf(T5(), config, {name: one.to("meta") for name, one in theirs.items()}, shapes).left == []
    with pytest.raises(UserError, match="differs from the one that it is tied to"):
        weights_from_hf(T5(), config, theirs | {"lm_head.weight": table + 1}, shapes)


def test_a_shape_that_it_cannot_have_is_refused(both):
    config = T5().config_from_hf(SHAPE)
    for change in ({"final_norm": False}, {"architecture": "decoder"}, {"share_layers": True}):
        with pytest.raises(UserError, match=next(iter(change))):
            hf_config_values(T5(), config.model_copy(update=change))


def test_the_decoder_starts_from_the_padding_token():
    assert T5.decoder_start == "pad"
