"""The recipes in published shapes: what they train is read by the class that their comment names, with our logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.builders import make_store
from tests.parity.families import our_logits, their_logits

from pretextlm.hf.export_model import export_model
from pretextlm.training import checkpoint as checkpoints
from pretextlm.training.recipe import Recipe
from pretextlm.training.run_directory import Run
from pretextlm.training.run_start import build_model
from pretextlm.training.state import TrainerState

transformers = pytest.importorskip("transformers", reason="it is the reader (extra hub)")

RECIPES = Path(__file__).parents[2] / "recipes"
IDS = np.random.default_rng(0).integers(300, 400, (2, 200))
"""Longer than ModernBERT's window."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "store", train=40, validation=10)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("modernbert_small", "ModernBertForMaskedLM"),
        ("llama_small", "LlamaForCausalLM"),
        ("t5_v1_1_small", "T5ForConditionalGeneration"),
        ("causal", "NanoChatForCausalLM"),
    ],
)
def test_a_run_of_the_recipe_has_our_logits_in_transformers(store, tmp_path, name, kind):
    recipe = Recipe.load(RECIPES / f"{name}.toml", overrides=[f"data.store={store.path}"])
    generator = torch.Generator().manual_seed(0)
    run = Run.create(tmp_path / "run", recipe.with_vocabulary(store.vocabulary), {}, store.path / "tokenizer.json")
    ours = build_model(run.recipe, torch.device("cpu")).eval()
    with torch.no_grad():
        for parameter in ours.parameters():  # output projections begin at zero
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    checkpoints.save(run.checkpoints, 1, ours.state_dict(), {}, vars(TrainerState(step=1)), keep=1)
    assert export_model(run, tmp_path / "out").architecture == kind
    model, report = getattr(transformers, kind).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    rows = {"decoder_input_ids": IDS[:, :50]} if model.config.is_encoder_decoder else {}
    attention = "causal" if ours.encoder is None else "bidirectional"
    found = our_logits(ours, input_ids=IDS, attention=attention, **rows)
    assert found.std() > 0.1
    torch.testing.assert_close(their_logits(model.eval(), input_ids=IDS, **rows), found, atol=1e-4, rtol=1e-4)
