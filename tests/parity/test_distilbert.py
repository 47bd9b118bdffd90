"""DistilBERT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
from tests.parity.encoders import EncoderParity
from tests.parity.families import imported, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.distilbert import DistilBert
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def both(request, tmp_path_factory):
    config = transformers.DistilBertConfig(
        vocab_size=90,
        dim=24,
        n_layers=3,
        n_heads=4,
        hidden_dim=40,
        max_position_embeddings=20,
        activation="relu",
        sinusoidal_pos_embds=True,
        tie_word_embeddings=request.param,
    )
    model = randomised(transformers.DistilBertForMaskedLM(config))
    directory = tmp_path_factory.mktemp("distilbert")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert DistilBert().config_from_hf({}) == DistilBert().config_from_hf(transformers.DistilBertConfig().to_dict())


def test_token_types_are_refused_on_the_way_out():
    with pytest.raises(UserError, match="type_vocab_size"):
        hf_config_values(DistilBert(), FAMILIES["bert"]().config_from_hf({}))
