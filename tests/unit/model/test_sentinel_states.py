"""The encoder's states at sentinels: found by id, equal with a cache, and what trains the encoder from step one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretextlm.batch import Batch
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.model_inputs import prepare
from pretextlm.model.sentinel_states import add_encoder_states, match_sentinels
from pretextlm.model.transformer import Transformer
from pretextlm.training.recipe import Recipe

SIZE, SENTINELS = 40, (7, 9)
VOCABULARY = Vocabulary(SIZE, 0, 1, 2, 3, 4, 5, 6, (7, 8, 9), frozenset(range(10)))
SHAPE = {"architecture": "encoder_decoder", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def model(trained: bool = True, **values: object) -> Transformer:
    torch.manual_seed(3)
    found = Transformer(ModelConfig.parse({**SHAPE, "vocab_size": SIZE, "sentinel_ids": SENTINELS, **values}))
    if trained:
        for name, parameter in found.named_parameters():
            parameter.data.normal_(0.0, 1.0 if "embed" in name else 0.3)
    return found.eval()


def inputs(model: Transformer, source: list[list[int]], target: list[list[int]], **arrays: object):
    batch = Batch(np.array(source, np.int32), decoder_input_ids=np.array(target, np.int32), **arrays)
    return prepare(batch, model.config, torch.device("cpu"), torch.float32)


def test_a_sentinel_gets_the_state_of_the_same_sentinel_of_its_own_row_and_segment():
    source = torch.tensor([[11, 7, 12, 8], [8, 11, 7, 7]])
    target = torch.tensor([[0, 7, 30, 8, 11], [0, 9, 8, 31, 7]])
    segments = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]])
    match = match_sentinels(target, source, SENTINELS, torch.tensor([[0] * 5, [0, 0, 0, 0, 1]]), segments)
    assert match.nonzero().tolist() == [[0, 1, 1], [0, 3, 3], [1, 2, 0], [1, 4, 3]]
    hidden = torch.arange(2 * 4 * 3, dtype=torch.float32).view(2, 4, 3)
    added = add_encoder_states(torch.ones(2, 5, 3), match, hidden)
    expected = torch.ones(2, 5, 3)
    for row, position, place in match.nonzero().tolist():
        expected[row, position] += hidden[row, place]
    assert torch.equal(added, expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_with_a_cache_is_what_reading_everything_anew_gives(beams):
    found = model(sentinel_states=True)
    sources = [[11, 7, 12], [13, 8, 14, 15, 7, 16], [7, 17]]
    starts = [[0, 7], [0, 8, 20, 7], [0, 7]]
    settings = GenerationConfig(max_new_tokens=6, temperature=0, beams=beams, stop=(), suppress=())
    for source, start, answer in zip(
        sources, starts, generate(found, VOCABULARY, sources, settings, starts), strict=True
    ):
        alone = generate(found, VOCABULARY, [source], settings, [start])[0]
        assert answer == alone
        if beams == 1:
            for done, token in enumerate(answer):
                hidden = found(inputs(found, [source], [[*start, *answer[:done]]])).hidden_BTD
                assert token == int(found.logits(hidden[0, -1]).argmax())


def test_another_source_at_the_sentinel_changes_what_is_predicted_there():
    with_states, without = model(sentinel_states=True), model()
    for found in (with_states, without):
        for block in found.decoder:
            block.cross_attn.o_proj.weight.data.zero_()  # leaves the sum as the only way
    changed = [
        (found(inputs(found, [[11, 7, 12]], [[0, 7, 20]])).hidden_BTD
         - found(inputs(found, [[13, 7, 12]], [[0, 7, 20]])).hidden_BTD).abs().amax(dim=(0, 2))
        for found in (with_states, without)
    ]  # fmt: skip
    assert changed[0][0] == 0
    assert (changed[0][1:] > 0).all()
    assert (changed[1] == 0).all()


def test_the_encoder_is_trained_by_the_first_step_with_them_and_not_without():
    for there in (True, False):
        found = model(trained=False, sentinel_states=there).train()
        labels = np.array([[7, 20, 8, 21]], np.int32)
        outputs = found(inputs(found, [[11, 7, 12, 8]], [[0, 7, 20, 8]], decoder_labels=labels))
        outputs.cross_entropy().backward()
        moved = [p.grad is not None and bool(p.grad.any()) for p in found.encoder.parameters()]
        assert any(moved) == there


def recipe(**model: object) -> Recipe:
    return Recipe.load(
        {
            "data": {"store": "s"},
            "objective": {"name": "span_corruption"},
            "model": model,
            "training": {"budget_steps": 1},
        }
    )


def test_a_recipe_has_them_in_the_default_encoder_decoder_and_takes_the_ids_from_the_store():
    assert recipe().model.sentinel_states
    assert recipe().with_vocabulary(VOCABULARY).model.sentinel_ids == SENTINELS
    assert recipe(vocab_size=64).with_vocabulary(VOCABULARY).model.sentinel_ids == SENTINELS
    assert not recipe(sentinel_states=False).with_vocabulary(VOCABULARY).model.sentinel_states
    assert not recipe(preset="t5-small").model.sentinel_states
    again = Recipe.load(recipe().with_vocabulary(VOCABULARY).dump())
    assert again.with_vocabulary(VOCABULARY) == again


def test_without_sentinels_there_are_no_states_and_scattered_ones_are_refused():
    none = Vocabulary(SIZE, 0, 1, 2, 3, 4, 5, 6, (), frozenset(range(7)))
    assert not recipe().with_vocabulary(none).model.sentinel_states
    scattered = Vocabulary(SIZE, 0, 1, 2, 3, 4, 5, 6, (7, 9), frozenset(range(10)))
    with pytest.raises(UserError, match="from 7 to 9, with other tokens among them"):
        recipe().with_vocabulary(scattered)
    with pytest.raises(UserError, match="sentinel_states are of an encoder-decoder"):
        ModelConfig(architecture="decoder", sentinel_states=True)
