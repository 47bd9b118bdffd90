"""Rotary positions for longer texts: YaRN, LongRoPE and dynamic scaling as transformers computes them."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tests.parity.decoders import DecoderParity
from tests.parity.families import our_logits, their_logits
from tests.parity.test_llama import SHAPE

from pretextlm.errors import UserError
from pretextlm.model.config import ModelConfig, RopeScaling
from pretextlm.model.families.llama import Llama
from pretextlm.model.rotary import document_lengths, rotary_angles

SHORT = [1.0, 1.1, 1.3, 1.7]
LONG = [1.2, 2.0, 4.0, 8.0]
FACTORS = {"short_factor": SHORT, "long_factor": LONG, "original_max_position_embeddings": 16}


def scaled(rope_type: str, **parameters: Any) -> dict[str, Any]:
    """A small model's configuration, as transformers writes it."""
    return {**SHAPE, "rope_parameters": {"rope_type": rope_type, "rope_theta": 500.0, **parameters}}


class LongTexts(DecoderParity):
    """Also documents longer than the original positions, alone and beside a short one."""

    longest: ClassVar[int] = 40

    def test_angles_are_the_same_to_five_decimals(self, both):
        for length in (9, self.longest):
            positions = torch.arange(length)[None]
            rotary = copy.deepcopy(both[0].model.rotary_emb)
            expected = rotary(torch.zeros(1, dtype=torch.float32), positions)
            found = rotary_angles(both[1].config, positions, torch.float32)
            for mine, theirs in zip(found[:2], expected, strict=True):
                half = mine.size(-1)
                torch.testing.assert_close(mine[:, :, 0].expand(1, length, half), theirs[..., :half], atol=1e-5, rtol=0)

    def test_a_long_document_has_the_same_logits_alone_and_packed_beside_a_short_one(self, both):
        lengths = [self.longest, 9]
        ids = np.random.default_rng(3).integers(5, 90, (1, sum(lengths)))
        segments = np.repeat([0, 1], lengths)[None]
        positions = np.concatenate([np.arange(length) for length in lengths])[None]
        packed = {"segment_ids": segments, "position_ids": positions}
        found = our_logits(both[1], input_ids=ids, attention="causal", **packed)
        for number in (0, 1):
            part = ids[:, segments[0] == number]
            expected = their_logits(copy.deepcopy(both[0]), input_ids=part)
            torch.testing.assert_close(found[:, segments[0] == number], expected, atol=1e-4, rtol=1e-4)


class TestYarn(LongTexts):
    kind = "LlamaForCausalLM"
    values: ClassVar = scaled("yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0, beta_slow=0.25)


class TestYarnWithAFactorOfItsOwnAndARangeBetweenFrequencies(LongTexts):
    kind = "Qwen2ForCausalLM"
    values: ClassVar = scaled(
        "yarn",
        rope_theta=100.0,
        factor=3.0,
        original_max_position_embeddings=32,
        attention_factor=1.4,
        truncate=False,
    )


class TestLongRope(LongTexts):
    kind = "LlamaForCausalLM"
    values: ClassVar = scaled("longrope", **FACTORS)


class TestLongRopeWithFactors(LongTexts):
    kind = "Qwen2ForCausalLM"
    values: ClassVar = scaled("longrope", **FACTORS, factor=8.0, attention_factor=1.25)


class TestDynamic(LongTexts):
    kind = "LlamaForCausalLM"
    values: ClassVar = scaled("dynamic", factor=2.5) | {"max_position_embeddings": 16}


def positions_of(rope_type: str, **parameters: Any) -> Any:
    return Llama().config_from_hf(scaled(rope_type, **parameters) | {"vocab_size": 90}).positions.rope_scaling


def test_two_factors_of_scores_are_read_as_the_one_that_they_mean():
    transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")
    given = {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 16, "mscale": 1.0}
    given |= {"mscale_all_dim": 0.7, "rope_theta": 500.0}
    config = transformers.LlamaConfig(**SHAPE, rope_parameters=dict(given))
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    assert positions_of(**given).attention_factor == pytest.approx(rotary.attention_scaling, rel=1e-12)


def test_original_positions_left_out_are_the_longest_row():
    assert positions_of(rope_type="yarn", factor=4.0).original_max_position_embeddings == 64
    assert positions_of(rope_type="dynamic", factor=4.0).original_max_position_embeddings == 64


def test_factors_must_be_as_many_as_frequencies():
    with pytest.raises(UserError, match="4 numbers in short_factor"):
        positions_of(rope_type="longrope", short_factor=[1.0], long_factor=LONG, original_max_position_embeddings=16)
    with pytest.raises(UserError, match="rope_theta"):
        ModelConfig.parse({"positions": {"rope_theta": 1.0, "rope_scaling": {"rope_type": "yarn"}}})
    with pytest.raises(UserError, match="original_max_position_embeddings"):
        RopeScaling.parse({"rope_type": "longrope", "original_max_position_embeddings": 1})


def test_the_length_of_a_document_is_its_own_wherever_it_stands():
    segments = torch.tensor([[0, 0, 0, 1, 1, -1], [0, 1, 1, 1, 1, 0]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 9], [0, 4, 5, 6, 7, 0]])
    assert document_lengths(positions, segments).tolist() == [[3, 3, 3, 2, 2, 1], [1, 8, 8, 8, 8, 1]]
    assert document_lengths(positions, None).tolist() == [[10] * 6, [8] * 6]
