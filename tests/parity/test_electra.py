"""ELECTRA's generator and discriminator: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
import torch
from tests.parity.encoders import CLOSE, IDS, MASK, EncoderParity
from tests.parity.families import imported, our_states, randomised, round_trip, their_logits

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values, weights_to_hf
from pretextlm.model.families.electra import JUDGE, Electra
from pretextlm.model.replaced_token_head import ReplacedTokenHead
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.registry import build

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
    "layer_norm_eps": 1e-3,
}


@pytest.fixture(
    scope="module",
    params=[{}, {"tie_word_embeddings": False}, {"embedding_size": 24}],
    ids=["narrow", "untied", "as_wide"],
)
def both(request, tmp_path_factory):
    config = transformers.ElectraConfig(**{**SHAPE, "hidden_act": "relu", **request.param})
    model = randomised(transformers.ElectraForMaskedLM(config))
    directory = tmp_path_factory.mktemp("generator")
    ours, found = imported(model, directory)
    return model, ours, found, directory


@pytest.fixture(scope="module")
def judges(tmp_path_factory):
    model = randomised(transformers.ElectraForPreTraining(transformers.ElectraConfig(**SHAPE)))
    directory = tmp_path_factory.mktemp("discriminator")
    ours, found = imported(model, directory, lambda config: {"replaced": ReplacedTokenHead(config)})
    return model, ours, found, directory


class TestGenerators(EncoderParity):
    pass


def test_of_a_discriminator_only_the_language_models_head_is_missing(judges):
    assert [name for name in judges[2].missing if not name.startswith("head_layers.")] == []
    assert judges[2].left == []


def test_a_discriminator_judges_alike_and_loads_when_it_is_written_back(judges):
    model, ours, _, directory = judges
    judge = ours.heads["replaced"]
    expected = their_logits(model, input_ids=IDS, attention_mask=MASK)
    with torch.inference_mode():
        found = judge(our_states(ours, input_ids=IDS, segment_ids=MASK - 1))
        packed = judge(
            our_states(ours, input_ids=IDS[:1], segment_ids=[[0] * 5 + [1] * 7], position_ids=[[*range(5), *range(7)]])
        )
    torch.testing.assert_close(found[MASK == 1], expected[MASK == 1], **CLOSE)
    for part in (slice(0, 5), slice(5, 12)):
        torch.testing.assert_close(packed[:, part], their_logits(model, input_ids=IDS[:1, part]), **CLOSE)
    again = round_trip(ours, model, directory)
    assert torch.equal(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))


def test_a_model_trained_on_replaced_tokens_is_written_as_its_discriminator():
    config = Electra().config_from_hf(SHAPE)
    model = Transformer(config, build("replaced_token", {"generator_size": 0.5}).heads(config))
    names = model.state_dict()
    assert hf_config_values(Electra(), config, names)["architectures"] == [JUDGE]
    theirs = transformers.ElectraForPreTraining(transformers.ElectraConfig(**SHAPE))
    assert set(weights_to_hf(Electra(), config, names)) == set(theirs.state_dict())


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert Electra().config_from_hf({}) == Electra().config_from_hf(transformers.ElectraConfig().to_dict())


def test_a_discriminator_of_another_activation_is_refused():
    with pytest.raises(UserError, match="activation 'relu'"):
        Electra().config_from_hf({**SHAPE, "hidden_act": "relu", "architectures": [JUDGE]})
