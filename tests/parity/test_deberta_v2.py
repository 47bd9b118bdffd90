"""DeBERTa-v3's shape: disentangled attention as transformers computes it, and the same bytes back."""

from __future__ import annotations

import pytest
from tests.parity.encoders import EncoderParity
from tests.parity.families import imported, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 40,
    "type_vocab_size": 0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,
    "relative_attention": True,
    "position_buckets": 6,  # fewer than the row is long, so that distances share buckets
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pad_token_id": 0,
}


@pytest.fixture(
    scope="module", params=[{}, {"position_buckets": 16, "max_relative_positions": 30, "type_vocab_size": 2}]
)
def both(request, tmp_path_factory):
    config = transformers.DebertaV2Config(**{**SHAPE, **request.param})
    model = randomised(transformers.DebertaV2ForMaskedLM(config))
    directory = tmp_path_factory.mktemp("deberta")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


@pytest.mark.parametrize(
    "change",
    [{"share_att_key": False}, {"position_biased_input": True}, {"conv_kernel_size": 3}, {"pos_att_type": "c2p"}],
)
def test_a_relative_that_the_trunk_is_not_is_refused(change):
    values = transformers.DebertaV2Config(**{**SHAPE, **change}).to_dict()
    with pytest.raises(UserError, match="DeBERTa"):
        FAMILIES["deberta-v2"]().config_from_hf(values)
