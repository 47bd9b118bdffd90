"""A model with one token type ignores the token types of a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tests.builders import make_model

from pretextlm.batch import Batch
from pretextlm.model.model_inputs import prepare

CPU = torch.device("cpu")


def hidden(model, batch):
    with torch.inference_mode():
        return model(prepare(batch, model.config, CPU, torch.float32)).hidden_BTD


def test_types_are_told_apart_where_the_model_has_several_and_nowhere_else():
    ids = np.arange(16, dtype=np.int32).reshape(2, 8)
    plain = Batch(input_ids=ids, labels=np.full_like(ids, -100))
    pairs = replace(plain, token_type_ids=np.tile(np.repeat(np.array([0, 1], np.int32), 4), (2, 1)))
    for types, alike in ((0, True), (1, True), (2, False)):
        model = make_model(architecture="encoder", type_vocab_size=types)
        assert torch.equal(hidden(model, plain), hidden(model, pairs)) == alike
