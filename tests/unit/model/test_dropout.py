"""Dropout depends on a token's key alone: the words are splitmix64's, the rate is met, and nothing else is touched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from tests.builders import make_model

from pretextlm.batch import Batch
from pretextlm.counter_rng import GOLDEN, CounterRNG, mix
from pretextlm.model.dropout import LEVELS, DropoutKeys, dropout, random_int16
from pretextlm.model.model_inputs import prepare

CPU = torch.device("cpu")
KEYS = CounterRNG.of(1, 0, np.arange(6)).bits(0, 50)


def dropout_keys(width: int, rate: float) -> DropoutKeys:
    return DropoutKeys.create(torch.from_numpy(KEYS.view(np.int64)), width, rate)


def test_the_bits_are_those_of_splitmix64():
    one = dropout_keys(24, 0.5)
    counters = np.arange(1, 7, dtype=np.uint64) * GOLDEN
    wanted = mix(KEYS[..., None] + counters - GOLDEN)  # mix adds it itself
    np.testing.assert_array_equal(random_int16(one.keys_BT, one.words_W).numpy(), wanted.view(np.int16))


@pytest.mark.parametrize("rate", [0.1, 0.25, 0.9])
def test_numbers_are_dropped_at_the_rate_and_independently_of_their_neighbours(rate):
    ones = torch.ones(*KEYS.shape, 512)
    out = dropout(ones, dropout_keys(512, rate))
    gone = (out == 0).numpy()
    exact = round(rate * LEVELS) / LEVELS
    assert stats.binomtest(int(gone.sum()), gone.size, exact).pvalue > 1e-3
    assert torch.equal(out[out != 0].unique(), torch.tensor([1 / (1 - exact)]))
    for axis in range(3):
        before, after = np.moveaxis(gone, axis, 0)[:-1].ravel(), np.moveaxis(gone, axis, 0)[1:].ravel()
        assert stats.chi2_contingency(np.histogram2d(before, after, 2)[0]).pvalue > 1e-3


def test_sites_layers_and_tokens_drop_different_numbers_and_each_the_same_again():
    ones, one = torch.ones(*KEYS.shape, 30), dropout_keys(30, 0.5)
    drawn = [dropout(ones, one.for_layer(layer), site) for layer in range(3) for site in range(3)]
    assert all(torch.equal(a, b) == (i == j) for i, a in enumerate(drawn) for j, b in enumerate(drawn))
    assert torch.equal(dropout(ones[:, 7:9], one._replace(keys_BT=one.keys_BT[:, 7:9])), dropout(ones, one)[:, 7:9])
    assert dropout(ones, None) is ones


@pytest.mark.parametrize("architecture", ["encoder", "decoder", "encoder_decoder"])
def test_a_model_drops_in_training_alone_and_where_tokens_have_keys(architecture):
    model = make_model(architecture=architecture).train()
    ids = np.arange(3, 15, dtype=np.int32).reshape(2, 6)
    keys = KEYS[:2, :6].view(np.int64)
    second = {"decoder_input_ids": ids, "decoder_labels": ids} if architecture == "encoder_decoder" else {"labels": ids}
    plain, keyed = (
        Batch(input_ids=ids, **second),
        Batch(input_ids=ids, dropout_keys=keys, decoder_dropout_keys=keys, **second),
    )

    def hidden(batch: Batch) -> torch.Tensor:
        return model(prepare(batch, model.config, CPU, torch.float32)).hidden_BTD

    without = hidden(plain)
    assert torch.equal(hidden(keyed), without)
    model.set_dropout(0.3)
    with_dropout_keys = hidden(keyed)
    assert torch.equal(hidden(plain), without)
    assert not torch.allclose(with_dropout_keys, without)
    assert torch.equal(hidden(keyed), with_dropout_keys)
    model.set_gradient_checkpointing(1)
    assert torch.equal(hidden(keyed), with_dropout_keys)
    model.eval()
    assert torch.equal(hidden(keyed), without)
