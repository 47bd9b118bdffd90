"""RoBERTa and XLM-RoBERTa: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.parity.encoders import CLOSE, IDS, MASK, EncoderParity
from tests.parity.families import imported, our_logits, randomised, their_logits

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.families.roberta import Roberta

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

PAD = 3


@pytest.fixture(scope="module", params=["Roberta", "XLMRoberta"])
def both(request, tmp_path_factory):
    config = getattr(transformers, f"{request.param}Config")(
        vocab_size=90,
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=20,
        type_vocab_size=2,
        hidden_act="relu",
        layer_norm_eps=1e-3,
        pad_token_id=PAD,
    )
    model = randomised(getattr(transformers, f"{request.param}ForMaskedLM")(config))
    directory = tmp_path_factory.mktemp("roberta")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


def test_rows_filled_up_with_the_padding_id_have_the_same_logits(both):
    model, ours, *_ = both
    ids = np.where(MASK, IDS, PAD)
    found = our_logits(ours, input_ids=ids, segment_ids=MASK - 1)
    expected = their_logits(model, input_ids=ids, attention_mask=MASK)
    torch.testing.assert_close(found[MASK == 1], expected[MASK == 1], **CLOSE)


@pytest.mark.parametrize(("name", "config"), [("roberta", "RobertaConfig"), ("xlm-roberta", "XLMRobertaConfig")])
def test_a_value_left_out_is_the_one_that_transformers_takes(name, config):
    values = getattr(transformers, config)().to_dict()
    size = {"vocab_size": values["vocab_size"]}
    assert FAMILIES[name]().config_from_hf(size) == FAMILIES[name]().config_from_hf(values)


def test_positions_that_begin_with_row_0_are_refused_on_the_way_out():
    bert = FAMILIES["bert"]().config_from_hf({})
    with pytest.raises(UserError, match="row 0"):
        hf_config_values(Roberta(), bert)


def test_a_model_without_a_padding_id_is_refused():
    with pytest.raises(UserError, match="padding"):
        Roberta().config_from_hf({"pad_token_id": None})
