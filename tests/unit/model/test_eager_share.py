"""Passes through blocks that compiled code does not serve are counted and mentioned."""

from __future__ import annotations

import functools

import numpy as np
import torch
from tests.builders import make_model

from pretextlm.batch import Batch
from pretextlm.model.model_inputs import prepare
from pretextlm.training.compilation import note_eager_share


def test_a_shape_that_was_not_compiled_is_counted(monkeypatch):
    def step(width: int) -> None:
        batch = Batch(np.zeros((2, width), dtype=np.int32), attention="causal")
        model(prepare(batch, model.config, torch.device("cpu"), torch.float32)).hidden_BTD.sum().backward()

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    model = make_model(architecture="decoder", num_hidden_layers=2)
    step(8)
    assert model.eager_share() == 0
    model.compile_blocks()
    step(8)
    notes: list[str] = []
    with torch.compiler.set_stance("eager_on_recompile"):
        step(8)
        note_eager_share(model, notes.append)
        assert (model.eager_share(), notes) == (0, [])
        step(12)
        with torch.no_grad():
            model(
                prepare(
                    Batch(np.zeros((2, 9), dtype=np.int32), attention="causal"),
                    model.config,
                    torch.device("cpu"),
                    torch.float32,
                )
            )
    assert model.eager_share() == 1 / 3
    note_eager_share(model, notes.append)
    assert notes[0].startswith("33% of the passes")
    model.undo_compile()
    step(8)
    assert model.eager_share() == 1 / 3
