"""Every preset has as many parameters as transformers' own model of that shape, and the figure that was published."""

from __future__ import annotations

import pytest
import torch

from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.parameter_count import components, total
from pretextlm.model.presets.preset import presets
from pretextlm.model.transformer import meta_model
from pretextlm.training.model_cost import published

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

BUFFERS = ("bart", "mbart")
"""Families whose head's bias is no parameter there."""


def theirs(preset, config) -> int:
    """Parameters of transformers' model; a head that a T5 checkpoint has apart is tied there until one is loaded."""
    from transformers import initialization

    shape = transformers.AutoConfig.for_model(preset.family, **preset.values)
    kind = getattr(transformers, next(iter(FAMILIES[preset.family].classes)))
    with torch.device("meta"), initialization.no_init_weights():
        model = kind(shape)
        model.tie_weights()
    count = sum(parameter.numel() for parameter in model.parameters())
    if preset.family in BUFFERS:
        count += config.vocab_size
    if not config.tie_word_embeddings and model.get_output_embeddings().weight is model.get_input_embeddings().weight:
        count += config.vocab_size * config.hidden_size
    return count


def by_depth():
    """Deep models take long to build, even without memory."""
    for name, preset in presets().items():
        values = preset.values
        depth = sum(values.get(key, 0) for key in values if key.endswith(("layers", "n_layer")))
        yield pytest.param(name, marks=pytest.mark.slow if depth > 32 else ())


@pytest.mark.parametrize("name", list(by_depth()))
def test_a_preset_has_the_parameters_of_transformers_model(name):
    preset = presets()[name]
    config = preset.config()
    model = meta_model(config)
    assert total(model) == theirs(preset, config)
    assert sum(part.parameters for part in components(model)) == total(model)
    assert published(preset, components(model))["agrees"]
