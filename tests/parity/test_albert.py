"""ALBERT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoders import CLOSE, IDS, MASK, EncoderParity
from tests.parity.families import imported, our_states, randomised, round_trip

from pretextlm.errors import UserError
from pretextlm.model.families.albert import Albert
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.heads import PairHead

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": 90,
    "embedding_size": 16,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 3,
    "hidden_act": "relu",
    "layer_norm_eps": 1e-3,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    model = randomised(transformers.AlbertForMaskedLM(transformers.AlbertConfig(**SHAPE)))
    directory = tmp_path_factory.mktemp("albert")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


def test_the_head_of_pairs_is_carried_both_ways(tmp_path):
    model = randomised(transformers.AlbertForPreTraining(transformers.AlbertConfig(**SHAPE)))
    ours, found = imported(model, tmp_path, lambda config: {"pair": PairHead(config, 2)})
    assert found.missing == []
    assert found.left == []
    again = round_trip(ours, model, tmp_path)
    with torch.inference_mode():
        pairs_B2 = ours.heads["pair"](our_states(ours, input_ids=IDS, segment_ids=MASK - 1)[:, 0])
        expected = again(input_ids=torch.as_tensor(IDS), attention_mask=torch.as_tensor(MASK)).sop_logits
    torch.testing.assert_close(pairs_B2, expected, **CLOSE)


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert Albert().config_from_hf({}) == Albert().config_from_hf(transformers.AlbertConfig().to_dict())


@pytest.mark.parametrize("values", [{"num_hidden_groups": 2}, {"inner_group_num": 2}, {"embedding_size": 24}])
def test_an_albert_that_the_trunk_cannot_be_is_refused(values):
    with pytest.raises(UserError):
        Albert().config_from_hf({**SHAPE, **values})


def test_layers_of_different_weights_are_refused_on_the_way_out():
    with pytest.raises(UserError):
        hf_config_values(Albert(), FAMILIES["electra"]().config_from_hf({}))
