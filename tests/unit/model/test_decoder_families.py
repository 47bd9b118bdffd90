"""Configurations of decoders: what is written reads back as the same shape, and nonsense is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig, PositionConfig
from pretextlm.model.families.base import hf_config_values
from pretextlm.model.families.registry import FAMILIES

GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 16}
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": GPT,
    "openai-gpt": GPT,
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": {**LLAMA, "use_sliding_window": True, "max_window_layers": 1},
    "qwen3": LLAMA,
    "nanochat": LLAMA,
    "gemma": LLAMA,
    "gemma2": LLAMA,
}
NONSENSE = [
    -1,
    0,
    10**12,
    1.5,
    "wide",
    True,
    [],
    [[]],
    {"a": {}},
    {"rope_type": []},
    {"rope_type": "linear", "factor": 0},
]
OPTIONS = (
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "max_position_embeddings",
    "layer_types",
    "sliding_window",
    "max_window_layers",
    "use_sliding_window",
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "activation_function",
    "afn",
    "n_inner",
    "layer_norm_epsilon",
    "scale_attn_weights",
)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_written_reads_back_as_the_same_shape(name: str) -> None:
    family = FAMILIES[name]()
    config = family.config_from_hf(SHAPES[name])
    assert family.config_from_hf(hf_config_values(family, config)) == config


@pytest.mark.parametrize("name", SHAPES)
def test_nonsense_in_any_value_is_read_or_refused_with_a_reason(name: str) -> None:
    family, reasons = FAMILIES[name](), []
    for key in (*SHAPES[name], *OPTIONS):
        for value in NONSENSE:
            try:
                family.config_from_hf({**SHAPES[name], key: value})
            except UserError as refused:
                reasons.append(str(refused))
    assert len(reasons) > 40
    assert max(map(len, reasons)) < 400


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_that_no_published_family_has_is_not_written(name: str) -> None:
    with pytest.raises(UserError):
        hf_config_values(FAMILIES[name](), ModelConfig(vocab_size=64, positions=PositionConfig(kind="alibi")))


def test_windows_are_written_layer_by_layer_however_they_are_repeated() -> None:
    family = FAMILIES["gemma2"]()
    config = family.config_from_hf({**LLAMA, "sliding_window": 6})
    assert config.attention.sliding_windows == (6, 0)
    assert hf_config_values(family, config)["layer_types"] == [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ]
    spelt = config.attention.model_copy(update={"sliding_windows": (6, 0, 6)})
    assert hf_config_values(family, config.model_copy(update={"attention": spelt})) == hf_config_values(family, config)


def test_layers_of_two_windows_are_not_written() -> None:
    family = FAMILIES["gemma2"]()
    config = family.config_from_hf(LLAMA)
    two = config.attention.model_copy(update={"sliding_windows": (6, 4, 0)})
    with pytest.raises(UserError, match="sliding_windows"):
        hf_config_values(family, config.model_copy(update={"attention": two}))
