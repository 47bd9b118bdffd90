"""Greedy and beam search write the tokens that transformers' generate writes, family by family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.families import imported, randomised

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.model.families.base import FAMILIES
from pretextlm.model.generation import GenerationSettings, generate

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

SIZE, PAD, BOS, NEW = 60, 0, 1, 14
ENDS = [2, *range(12, 18)]
"""Several, so that random models come upon one now and then."""
VOCABULARY = Vocabulary(SIZE, PAD, 3, 4, 5, 6, BOS, ENDS[0], (7, 8), frozenset(range(9)))
LAYERS = {
    "hidden_size": 24,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}
GPT = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64}
T5 = {"d_model": 24, "d_kv": 6, "d_ff": 44, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
BART = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 44,
    "max_position_embeddings": 64,
}
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", GPT),
    "llama": ("LlamaForCausalLM", LAYERS),
    "mistral": ("MistralForCausalLM", {**LAYERS, "sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", LAYERS),
    "qwen3": ("Qwen3ForCausalLM", LAYERS),
    "gemma": ("GemmaForCausalLM", LAYERS),
    "gemma2": ("Gemma2ForCausalLM", {**LAYERS, "sliding_window": 5, "attn_logit_softcapping": 2.0}),
    "t5": ("T5ForConditionalGeneration", T5),
    "mt5": ("MT5ForConditionalGeneration", T5),
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": ("MBartForConditionalGeneration", BART),
}
"""model_type → transformers' class and what its configuration says; families that have not been read are left out."""

RNG = np.random.default_rng(4)
PROMPTS = [RNG.integers(9, SIZE, RNG.integers(1, 12)).tolist() for _ in range(10)]
SETTINGS = {
    "greedy": {},
    "greedy with a penalty of repetitions": {"repetition_penalty": 1.7},
    "greedy of at least nine tokens": {"min_new_tokens": 9},
    "three beams": {"beams": 3},
    "two beams, longer texts preferred": {"beams": 2, "length_penalty": 2.0},
    "four beams, short texts preferred, early stopping": {"beams": 4, "length_penalty": -0.5, "early_stopping": True},
    "three beams, never early, two texts each": {"beams": 3, "early_stopping": "never", "samples": 2},
}


@pytest.fixture(scope="module", params=[name for name in FAMILY if name in FAMILIES])
def both(request, tmp_path_factory):
    name, values = FAMILY[request.param]
    cls = getattr(transformers, name)
    ids = {"vocab_size": SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": ENDS}
    model = randomised(cls(cls.config_class(**ids, **values)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # scores far apart, and not always of the token just read
            parameter.mul_(12 if "wpe" in name or "positions" in name else 3 if parameter.ndim == 2 else 1)
    ours, _ = imported(model, tmp_path_factory.mktemp("theirs"))
    return model, ours


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_tokens_are_written(both, name):
    model, ours = both
    settings = GenerationSettings.parse(
        {"temperature": 0, "max_new_tokens": NEW, "suppress": (PAD,), "stop": tuple(ENDS), **SETTINGS[name]}, "the test"
    )
    starts = None if ours.encoder is None else [[PAD]] * len(PROMPTS)
    found = generate(ours, VOCABULARY, PROMPTS, settings, starts)
    expected = theirs(model, settings, starts is not None)
    assert found == expected
    assert len({tuple(text) for text in found}) > 1


def test_some_texts_end_and_others_go_on(both):
    model, ours = both
    lengths = {len(text) for text in theirs(model, GenerationSettings(max_new_tokens=NEW), ours.encoder is not None)}
    assert len(lengths) > 1


def theirs(model: Any, settings: GenerationSettings, reads_sources: bool) -> list[list[int]]:
    """New tokens without the one that ended them, by transformers."""
    width = max(map(len, PROMPTS))
    rows, mask = np.full((len(PROMPTS), width), PAD), np.zeros((len(PROMPTS), width), int)
    for row, prompt in enumerate(PROMPTS):
        place = slice(0, len(prompt)) if reads_sources else slice(width - len(prompt), width)
        rows[row, place], mask[row, place] = prompt, 1
    options = {} if settings.beams == 1 else {"length_penalty": settings.length_penalty}
    if settings.beams > 1:
        options |= {"early_stopping": settings.early_stopping, "num_return_sequences": settings.samples}
    with torch.inference_mode():
        out = model.generate(
            torch.from_numpy(rows),
            attention_mask=torch.from_numpy(mask),
            do_sample=False,
            max_new_tokens=settings.max_new_tokens,
            min_new_tokens=settings.min_new_tokens or None,
            repetition_penalty=settings.repetition_penalty,
            num_beams=settings.beams,
            suppress_tokens=[PAD],
            pad_token_id=PAD,
            eos_token_id=ENDS,
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
            **options,
        )
    texts = out[:, 1 if reads_sources else width :].tolist()
    return [text[: next((n for n, token in enumerate(text) if token in ENDS), None)] for text in texts]
