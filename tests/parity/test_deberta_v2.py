"""DeBERTa-v3's shape: disentangled attention as transformers computes it, and the same bytes back."""

from __future__ import annotations

import pytest
from tests.parity.encoders import packed_documents_agree, padded_rows_agree, written_back_agrees
from tests.parity.families import imported, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.base import FAMILIES

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


def test_nothing_is_missing_and_nothing_is_left(both):
    assert both[2].missing == []
    assert both[2].left == []


def test_padded_rows_have_the_same_logits(both):
    padded_rows_agree(*both[:2], types=both[0].config.type_vocab_size)


def test_packed_documents_have_the_logits_they_have_apart(both):
    packed_documents_agree(*both[:2])


def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(both):
    model, ours, _, directory = both
    written_back_agrees(model, ours, directory)


@pytest.mark.parametrize(
    "change",
    [{"share_att_key": False}, {"position_biased_input": True}, {"conv_kernel_size": 3}, {"pos_att_type": "c2p"}],
)
def test_a_relative_that_the_trunk_is_not_is_refused(change):
    values = transformers.DebertaV2Config(**{**SHAPE, **change}).to_dict()
    with pytest.raises(UserError, match="DeBERTa"):
        FAMILIES["deberta-v2"]().config_in(values)
