"""Whole models of every kind of position and attention: fp32 equals the CPU's, bf16 is near it, with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from benchmarks.gpu.checks.common import assert_near, exact_products
from benchmarks.gpu.isolation import item
from tests.builders import make_model

from pretextlm.batch import Batch
from pretextlm.model.config import ModelConfig
from pretextlm.model.model_inputs import prepare

SECTION = "2 attention"
LENGTH = 192
MODELS: dict[str, dict[str, Any]] = {
    "rotary": {},
    "relative": {"positions": {"kind": "relative"}},
    "alibi": {"positions": {"kind": "alibi"}},
    "disentangled": {"architecture": "encoder", "positions": {"kind": "disentangled"}},
    "learned": {"positions": {"kind": "learned", "max_position_embeddings": LENGTH}},
    "windows": {"architecture": "encoder", "attention": {"sliding_windows": [16, 0], "global_tokens": 1}},
    "sparse": {"architecture": "encoder", "attention": {"block_size": 4, "num_random_blocks": 1}},
    "softcap": {"attention": {"softcap": 20.0}, "logit_softcap": 30.0},
    "grouped queries": {"num_key_value_heads": 2},
    "encoder-decoder": {"architecture": "encoder_decoder"},
    "relative encoder-decoder": {"architecture": "encoder_decoder", "positions": {"kind": "relative"}},
    "prefix": {},
    "ranked": {"architecture": "encoder"},
}


def batch(case: str, config: ModelConfig) -> Batch:
    """Two rows of three documents each."""
    rng = np.random.default_rng(0)
    shape = (2, LENGTH)
    ids = rng.integers(0, config.vocab_size, shape).astype(np.int32)
    edges = np.array([0, 70, 71, LENGTH])
    segments = np.repeat(np.arange(3), np.diff(edges)).astype(np.int32)[None].repeat(2, 0)
    positions = (np.arange(LENGTH) - edges[segments]).astype(np.int32)
    labels = rng.integers(0, config.vocab_size, shape).astype(np.int32)
    row: dict[str, Any] = {"input_ids": ids, "segment_ids": segments, "position_ids": positions}
    if config.architecture == "encoder_decoder":
        row |= {f"decoder_{name}": value for name, value in list(row.items())}
        return Batch(**row, decoder_labels=labels, attention="bidirectional")
    if case == "prefix":
        return Batch(**row, labels=labels, attention="prefix", prefix=np.full(shape, 20, np.int32))
    if case == "ranked":
        order = np.stack([rng.permutation(LENGTH) for _ in range(2)]).astype(np.int32)
        return Batch(**row, labels=labels, attention="ranked", rank=order, reach=order)
    return Batch(**row, labels=labels, attention="causal" if config.architecture == "decoder" else "bidirectional")


def computed(case: str, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Hidden states, and the gradients of all weights laid end to end."""
    fields = {"architecture": "decoder", "hidden_size": 64, **MODELS[case]}
    model = make_model(**fields).to(device).train()
    inputs = prepare(batch(case, model.config), model.config, torch.device(device), dtype)
    hidden = model(inputs).hidden_BTD
    score(hidden).backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return [hidden, torch.cat(gradients)]


def score(hidden_BTD: torch.Tensor) -> torch.Tensor:
    """A sum with fixed random weights: the mean of squares after a norm would have no gradient."""
    weights = torch.randn(hidden_BTD.shape, generator=torch.Generator().manual_seed(1))
    return (hidden_BTD.float() * weights.to(hidden_BTD.device)).sum()


@item(SECTION, cases=[f"{dtype} {model}" for model in MODELS for dtype in ("fp32", "bf16")])
def outputs_and_gradients_are_the_cpu_s(device: str, case: str) -> str:
    exact_products()
    dtype, _, name = case.partition(" ")
    half = dtype == "bf16"
    found = computed(name, device, torch.bfloat16 if half else torch.float32)
    wanted = computed(name, "cpu", torch.float32)
    errors = [
        assert_near(*both, most, what)
        for both, most, what in zip(
            zip(found, wanted, strict=True), (5e-2, 1e-1) if half else (1e-4, 1e-3), ("output", "gradient"), strict=True
        )
    ]
    return "relative errors " + ", ".join(f"{error:.1e}" for error in errors)
