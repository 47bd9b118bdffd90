"""BERT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from tests.parity.encoders import CLOSE, IDS, MASK, EncoderParity
from tests.parity.families import imported, our_states, randomised, round_trip

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import hf_config_values, weights_from_hf, weights_to_hf
from pretextlm.model.families.bert import Bert
from pretextlm.model.heads import PairHead
from pretextlm.model.transformer import Transformer

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "type_vocab_size": 3,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-3,
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    model = randomised(transformers.BertForMaskedLM(transformers.BertConfig(**SHAPE)))
    directory = tmp_path_factory.mktemp("bert")
    ours, found = imported(model, directory)
    return model, ours, found, directory


@pytest.fixture(scope="module")
def both_with_pairs(tmp_path_factory):
    model = randomised(transformers.BertForPreTraining(transformers.BertConfig(**SHAPE)))
    directory = tmp_path_factory.mktemp("bert_pairs")
    ours, found = imported(model, directory, lambda config: {"pair": PairHead(config, 2)})
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


def test_the_head_of_pairs_is_carried_both_ways(both_with_pairs):
    model, ours, found, directory = both_with_pairs
    assert found.missing == []
    assert found.left == []
    again = round_trip(ours, model, directory)
    ids, mask = torch.as_tensor(IDS), torch.as_tensor(MASK)
    with torch.inference_mode():
        pairs_B2 = ours.heads["pair"](our_states(ours, input_ids=IDS, segment_ids=MASK - 1)[:, 0])
        for theirs in (model, again):
            expected = theirs(input_ids=ids, attention_mask=mask)
            torch.testing.assert_close(pairs_B2, expected.seq_relationship_logits, **CLOSE)


def test_a_model_without_a_head_of_pairs_leaves_its_tensors(both_with_pairs):
    _, ours, _, directory = both_with_pairs
    plain = Transformer(ours.config)
    shapes = {name: tensor.shape for name, tensor in plain.state_dict().items()}
    found = weights_from_hf(Bert(), ours.config, load_file(directory / "model.safetensors"), shapes)
    assert found.missing == []
    assert sorted(found.left) == [
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "cls.seq_relationship.bias",
        "cls.seq_relationship.weight",
    ]


def test_a_head_of_three_classes_is_refused_on_the_way_out(both):
    config = both[1].config
    model = Transformer(config, {"pair": PairHead(config, 3)})
    with pytest.raises(UserError, match="BertForPreTraining has 2 rows"):
        weights_to_hf(Bert(), config, model.state_dict())


def test_a_bare_model_leaves_out_its_prefix_and_an_old_one_names_its_norms_otherwise(both):
    model, ours, *_ = both
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    bare = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in model.bert.state_dict().items()
    }
    found = weights_from_hf(Bert(), ours.config, bare, shapes)
    assert [name for name in found.missing if not name.startswith("head_layers.")] == []
    assert found.left == []
    for name, tensor in found.weights.items():
        assert torch.equal(tensor, ours.state_dict()[name])


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert Bert().config_from_hf({}) == Bert().config_from_hf(transformers.BertConfig().to_dict())


@pytest.mark.parametrize(
    "values",
    [
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"tie_word_embeddings": False},
        {"hidden_size": "24"},
        {"hidden_act": ["gelu"]},
        {"num_attention_heads": 5},
        {"type_vocab_size": 0},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_bert_that_the_trunk_cannot_be_is_refused(values):
    with pytest.raises(UserError):
        Bert().config_from_hf({**SHAPE, **values})


@pytest.mark.parametrize(
    "changes",
    [
        {"norm": {"kind": "rms", "weight": True, "placement": "post"}},
        {"positions": {"kind": "rotary"}},
        {"attention": {"sliding_windows": [0, 8]}},
        {"share_layers": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_shape_that_no_bert_has_is_refused_on_the_way_out(changes):
    values = Bert().config_from_hf(SHAPE).model_dump()
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) else change
    with pytest.raises(UserError):
        hf_config_values(Bert(), ModelConfig.parse(values))
