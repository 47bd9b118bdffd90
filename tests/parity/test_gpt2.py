"""GPT-2: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from tests.parity.decoders import IDS, DecoderParity
from tests.parity.families import our_logits

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values, weights_from_hf
from pretextlm.model.families.gpt2 import Gpt2
from pretextlm.model.transformer import Transformer

SHAPE = {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 20}


class TestGpt2(DecoderParity):
    kind = "GPT2LMHeadModel"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "n_inner": 40,
        "layer_norm_epsilon": 1e-3,
        "activation_function": "relu",
    }


class TestGpt2OfItsOwnHeadAndScale(DecoderParity):
    kind = "GPT2LMHeadModel"
    values: ClassVar[dict[str, Any]] = {
        **SHAPE,
        "n_inner": 40,
        "scale_attn_weights": False,
        "tie_word_embeddings": False,
    }


def test_a_model_without_a_head_and_with_the_masks_of_older_files_is_read_whole():
    transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")
    bare = transformers.GPT2Model(transformers.GPT2Config(vocab_size=90, **SHAPE))
    weights = dict(bare.state_dict()) | {"h.0.attn.bias": torch.ones(1, 1, 20, 20).tril()}
    config = Gpt2().config_from_hf(bare.config.to_dict())
    ours = Transformer(config)
    found = weights_from_hf(Gpt2(), config, weights, {name: tensor.shape for name, tensor in ours.state_dict().items()})
    assert (found.missing, found.left) == ([], [])
    ours.load_state_dict(found.weights)
    states = bare.eval()(torch.as_tensor(IDS)).last_hidden_state
    torch.testing.assert_close(our_logits(ours, input_ids=IDS, attention="causal"), states @ bare.wte.weight.T)


def test_a_width_of_the_inner_layer_that_is_not_given_is_four_times_the_models():
    assert Gpt2().config_from_hf({**SHAPE, "vocab_size": 90, "n_inner": None}).intermediate_size == 96


def test_an_option_that_the_trunk_lacks_is_refused_by_name():
    with pytest.raises(UserError, match="scale_attn_by_inverse_layer_idx"):
        Gpt2().config_from_hf({**SHAPE, "vocab_size": 90, "scale_attn_by_inverse_layer_idx": True})


def test_a_value_that_is_absent_or_no_number_is_refused_by_name():
    with pytest.raises(UserError, match="vocab_size"):
        Gpt2().config_from_hf(SHAPE)
    with pytest.raises(UserError, match="n_embd"):
        Gpt2().config_from_hf({**SHAPE, "vocab_size": 90, "n_embd": "wide"})


def test_a_shape_that_it_cannot_be_is_not_written():
    config = Gpt2().config_from_hf({**SHAPE, "vocab_size": 90})
    assert Gpt2().config_from_hf(hf_config_values(Gpt2(), config)) == config
    with pytest.raises(UserError, match="final_norm"):
        hf_config_values(Gpt2(), config.model_copy(update={"final_norm": False}))
