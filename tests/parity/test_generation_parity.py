"""Greedy and beam search write the tokens that transformers' generate writes, family by family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.parity.families import imported, randomised

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.model.generation import GenerationConfig, generate

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

pytestmark = pytest.mark.slow

SIZE, PAD, BOS, EOS, NEW = 60, 0, 1, 2, 14
VOCABULARY = Vocabulary(SIZE, PAD, 3, 4, 5, 6, BOS, EOS, (7, 8), frozenset(range(9)))
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
    "openai-gpt": ("OpenAIGPTLMHeadModel", GPT),
    "gpt2": ("GPT2LMHeadModel", GPT),
    "llama": ("LlamaForCausalLM", LAYERS),
    "mistral": ("MistralForCausalLM", {**LAYERS, "sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", LAYERS),
    "qwen3": ("Qwen3ForCausalLM", LAYERS),
    "nanochat": ("NanoChatForCausalLM", LAYERS),
    "gemma": ("GemmaForCausalLM", LAYERS),
    "gemma2": ("Gemma2ForCausalLM", {**LAYERS, "sliding_window": 5, "attn_logit_softcapping": 2.0}),
    "t5": ("T5ForConditionalGeneration", T5),
    "mt5": ("MT5ForConditionalGeneration", T5),
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": ("MBartForConditionalGeneration", BART),
}
"""model_type → transformers' class and what its configuration says."""
UNPADDED = ("openai-gpt",)
"""Families in which transformers counts padding as positions: it is given their prompts one by one."""

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


@pytest.fixture(scope="module", params=FAMILY)
def both(request, tmp_path_factory):
    """(theirs, ours, ids that end a text)."""
    name, values = FAMILY[request.param]
    cls = getattr(transformers, name)
    ids = {"vocab_size": SIZE, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    model = randomised(cls(cls.config_class(**ids, **values)), seed=2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # so that texts differ, and are more than one token repeated
            if ".ln_" in name and name.endswith("weight"):
                parameter.add_(1)
            elif parameter.ndim == 2 and len(parameter) == SIZE:
                parameter.div_(parameter.norm(dim=1, keepdim=True))
            elif parameter.ndim == 2:
                parameter.mul_(12 if "wpe" in name or "positions" in name else 6)
    ours, _ = imported(model, tmp_path_factory.mktemp("theirs"))
    return model, ours, some_ends(theirs(model, settings_of("greedy", ())))


def settings_of(name: str, ends: tuple[int, ...]) -> GenerationConfig:
    usual = {"temperature": 0, "max_new_tokens": NEW, "suppress": (PAD,), "stop": ends}
    return GenerationConfig.parse({**usual, **SETTINGS[name]}, "the test")


def some_ends(texts: list[list[int]]) -> tuple[int, ...]:
    """Tokens that end about half of these texts, none of them as its first token."""
    ends: set[int] = set()
    for token in sorted({token for text in texts for token in text[1:]} - {text[0] for text in texts}):
        ended = sum(not ends.isdisjoint(text) for text in texts)
        if ended < len(texts) // 2 and sum(not (ends | {token}).isdisjoint(text) for text in texts) < len(texts) - 1:
            ends.add(token)
    return tuple(sorted(ends))


def ours_of(ours: Any, settings: GenerationConfig) -> list[list[int]]:
    starts = None if ours.encoder is None else [[PAD]] * len(PROMPTS)
    return generate(ours, VOCABULARY, PROMPTS, settings, starts)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_tokens_are_written(both, name):
    model, ours, ends = both
    settings = settings_of(name, ends)
    found = ours_of(ours, settings)
    assert found == theirs(model, settings)
    different = len({tuple(text) for text in found})
    assert different >= (2 if settings.length_penalty < 0 else len(PROMPTS) // 2)


def test_some_texts_end_and_others_go_on(both):
    model, ours, ends = both
    free, ended = (ours_of(ours, settings_of("greedy", stop)) for stop in ((), ends))
    assert free == theirs(model, settings_of("greedy", ()))
    assert all(len(text) == NEW for text in free)
    for whole, text in zip(free, ended, strict=True):  # each goes as far as it went, up to its first end
        assert text == whole[: next((place for place, token in enumerate(whole) if token in ends), NEW)]
    assert 2 <= sum(len(text) < NEW for text in ended) <= len(PROMPTS) - 2


def theirs(model: Any, settings: GenerationConfig) -> list[list[int]]:
    """New tokens without the one that ended them, by transformers."""
    if model.config.model_type in UNPADDED:
        return [text for prompt in PROMPTS for text in theirs_of(model, settings, [prompt])]
    return theirs_of(model, settings, PROMPTS)


def theirs_of(model: Any, settings: GenerationConfig, prompts: list[list[int]]) -> list[list[int]]:
    """The same for a batch."""
    reads_sources, ends = model.config.is_encoder_decoder, list(settings.stop or ())
    width = max(map(len, prompts))
    rows, mask = np.full((len(prompts), width), PAD), np.zeros((len(prompts), width), int)
    for row, prompt in enumerate(prompts):
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
            eos_token_id=ends or [SIZE],  # none: a token that there is not
            decoder_start_token_id=PAD,
            forced_eos_token_id=None,
            **options,
        )
    texts = out[:, 1 if reads_sources else width :].tolist()
    return [text[: next((n for n, token in enumerate(text) if token in ends), None)] for text in texts]
