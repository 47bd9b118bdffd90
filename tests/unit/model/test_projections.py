"""Queries, keys and values in one product equal three products, and parameters keep their names."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from peft.tuners.lora import LoraConfig
from peft.tuners.lora.layer import Linear as Adapter
from tests.builders import make_model
from torch.utils._python_dispatch import TorchDispatchMode

from pretextlm.batch import Batch
from pretextlm.model import layers
from pretextlm.model.model_inputs import prepare

CPU = torch.device("cpu")
IDS = np.random.default_rng(0).integers(0, 128, (2, 8)).astype(np.int32)


class Products(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        return self.counts["mm"] + self.counts["addmm"]


def computed(model, inputs):
    model.zero_grad()
    with Products() as products:
        hidden = model(inputs).hidden_BTD
        hidden.square().sum().backward()
    return hidden, {name: weight.grad for name, weight in model.named_parameters()}, products.total


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_one_product_equals_several(monkeypatch, bias, key_heads):
    attention = {"bias": bias}
    model = make_model(architecture="encoder_decoder", num_key_value_heads=key_heads, attention=attention)
    batch = Batch(IDS, decoder_input_ids=IDS, attention="bidirectional")
    inputs = prepare(batch, model.config, CPU, torch.float64)
    each, gradients, products = computed(model, inputs)
    monkeypatch.setattr(layers, "JOIN_ON", ("cpu",))
    joined, of_joined, fewer = computed(model, inputs)
    torch.testing.assert_close(joined, each, atol=1e-12, rtol=1e-12)
    assert of_joined.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(of_joined[name], gradient, atol=1e-5, rtol=1e-5)
    # Per layer, two products of self-attention are saved in the encoder and in the decoder, and one of cross-attention;
    # each of them has two more in the backward pass.
    assert products - fewer == 2 * (2 + 2 + 1) * 3


def test_weights_that_are_not_cast_are_not_copied_together(monkeypatch):
    model = make_model(architecture="encoder")
    inputs = prepare(Batch(IDS, attention="bidirectional"), model.config, CPU, torch.float32)
    each, _, products = computed(model, inputs)
    monkeypatch.setattr(layers, "JOIN_ON", ("cpu",))
    joined, _, same = computed(model, inputs)
    assert same == products
    assert torch.equal(joined, each)


def test_an_adapter_around_one_layer_is_applied(monkeypatch):
    monkeypatch.setattr(layers, "JOIN_ON", ("cpu",))
    inner = [layers.Linear(8, 8) for _ in range(3)]
    adapter = Adapter(inner[0], "default", LoraConfig(r=2), r=2)
    torch.nn.init.normal_(adapter.lora_B["default"].weight)
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    found = layers.project(x, adapter, *inner[1:])
    torch.testing.assert_close(found[0], adapter(x))
    assert not torch.allclose(found[0], inner[0](x))
