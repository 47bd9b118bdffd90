"""ModernBERT: the same logits as transformers, and the same bytes back."""

from __future__ import annotations

import pytest
from tests.parity.encoders import EncoderParity
from tests.parity.families import imported, randomised

from pretextlm.errors import UserError
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.modernbert import ModernBert
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "max_position_embeddings": 20,
    "norm_eps": 1e-3,
    "local_attention": 5,
    "hidden_activation": "silu",
    "classifier_activation": "relu",
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    },
    **{f"{name}_token_id": i for i, name in enumerate(("pad", "eos", "bos", "cls", "sep"))},
}
BIASED = {f"{name}_bias": True for name in ("norm", "attention", "mlp", "classifier")}
OTHERS = {
    "decoder_bias": False,
    "tie_word_embeddings": False,
    "layer_types": ["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
}


@pytest.fixture(scope="module", params=[{}, BIASED, OTHERS], ids=["usual", "biased", "other_layers"])
def both(request, tmp_path_factory):
    model = randomised(transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SHAPE, **request.param)))
    directory = tmp_path_factory.mktemp("modernbert")
    ours, found = imported(model, directory)
    return model, ours, found, directory


class TestParity(EncoderParity):
    pass


def test_a_value_left_out_is_the_one_that_transformers_takes():
    assert ModernBert().config_from_hf({}) == ModernBert().config_from_hf(transformers.ModernBertConfig().to_dict())


def test_an_older_configuration_names_its_angles_and_layers_otherwise():
    older = {"global_rope_theta": 500.0, "local_rope_theta": 20.0, "global_attn_every_n_layers": 2}
    config = ModernBert().config_from_hf(older)
    assert config == ModernBert().config_from_hf(transformers.ModernBertConfig(**older).to_dict())
    assert (config.positions.rope_theta, config.positions.local_rope_theta) == (500.0, 20.0)
    assert config.attention.sliding_windows == (0, 128)


@pytest.mark.parametrize(
    "values",
    [
        {"local_attention": 0},
        {"layer_types": ["full_attention"]},
        {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}},
    ],
    ids=lambda values: next(iter(values)),
)
def test_a_modernbert_that_the_trunk_cannot_be_is_refused(values):
    with pytest.raises(UserError):
        ModernBert().config_from_hf({**SHAPE, **values})


def test_a_bert_is_refused_on_the_way_out():
    with pytest.raises(UserError):
        hf_config_values(ModernBert(), FAMILIES["bert"]().config_from_hf({}))
