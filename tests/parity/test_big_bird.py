"""BigBird: block-sparse and full attention, the pooler that is only carried, and the same bytes back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.parity.families import imported, our_logits, randomised, round_trip, their_logits

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.big_bird import BigBird

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 80,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-3,
    "block_size": 4,
    "num_random_blocks": 2,
}
IDS = np.random.default_rng(0).integers(5, 90, (3, 62))
MASK = (np.arange(62) < np.array([62, 45, 30])[:, None]).astype(int)
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
KINDS = {
    "full": {"attention_type": "original_full", "rescale_embeddings": True},
    "sparse": {"attention_type": "block_sparse"},
    "sparse_without_biases": {"use_bias": False, "num_random_blocks": 1, "hidden_act": "gelu_new"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def both(request, tmp_path_factory):
    model = randomised(transformers.BigBirdForMaskedLM(config(request.param)))
    directory = tmp_path_factory.mktemp("big_bird")
    ours, found = imported(model, directory)
    return model, ours, found, directory


def config(kind):
    return transformers.BigBirdConfig(**{**SHAPE, **KINDS[kind]})


def alone(model, ids):
    """Their logits of one document. A short one turns a model of theirs into one of full attention for good."""
    return their_logits(copy.deepcopy(model), input_ids=ids[None])[0]


def test_nothing_is_missing_and_nothing_is_left(both):
    assert both[2].missing == []
    assert both[2].left == []


def test_padded_rows_have_the_logits_that_theirs_have_apart(both):
    found = our_logits(both[1], input_ids=IDS, segment_ids=MASK - 1)
    for row, ids, mask in zip(found, IDS, MASK, strict=True):
        torch.testing.assert_close(row[mask == 1], alone(both[0], ids[mask == 1]), **CLOSE)


def test_a_row_as_long_as_all_others_has_the_same_logits_in_their_batch(both):
    ids, types = IDS[:2], np.random.default_rng(1).integers(0, 2, (2, 62))
    found = our_logits(both[1], input_ids=ids, token_type_ids=types)
    torch.testing.assert_close(found, their_logits(both[0], input_ids=ids, token_type_ids=types), **CLOSE)


def test_packed_documents_have_the_logits_they_have_apart(both):
    lengths = [47, 9, 50]
    ids = np.random.default_rng(2).integers(5, 90, (1, sum(lengths)))
    segments = np.repeat(np.arange(3), lengths)[None]
    positions = np.concatenate([np.arange(length) for length in lengths])[None]
    found = our_logits(both[1], input_ids=ids, segment_ids=segments, position_ids=positions)
    for number in range(3):
        at = segments[0] == number
        torch.testing.assert_close(found[0, at], alone(both[0], ids[0, at]), **CLOSE)


def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(both):
    model, ours, _, directory = both
    again = round_trip(ours, model, directory)
    assert torch.equal(their_logits(again, input_ids=IDS), their_logits(model, input_ids=IDS))


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert BigBird().config_from_hf({}) == BigBird().config_from_hf(transformers.BigBirdConfig().to_dict())


@pytest.mark.parametrize("changes", [{"attention_type": "sparse"}, {"block_size": 0}, {"is_decoder": True}])
def test_a_big_bird_that_the_trunk_cannot_be_is_refused(changes):
    with pytest.raises(UserError):
        BigBird().config_from_hf({**SHAPE, **changes})


def test_drawn_blocks_are_refused_on_the_way_out():
    values = BigBird().config_from_hf(SHAPE).model_dump()
    values["attention"]["sample_random_blocks"] = True
    with pytest.raises(UserError, match="sample_random_blocks"):
        hf_config_values(BigBird(), ModelConfig.parse(values))


def test_blocks_are_for_encoders_without_windows():
    for change in ({"architecture": "decoder"}, {"attention": {"block_size": 4, "sliding_windows": (8,)}}):
        with pytest.raises(UserError, match="block_size"):
            ModelConfig.parse({"vocab_size": 90, "attention": {"block_size": 4}, "architecture": "encoder", **change})
