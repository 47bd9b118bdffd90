"""Tokens written per second, with a key-value cache, beside transformers.generate: same weights, prompts and type.

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.generation

Greedy, prompts of 32 tokens (of the encoder, where there is one) and 64 new ones, on one thread by default; the two
take turns, the best turn of each counts. With one thread the clock is that of CPU time, else the wall's. Both have
their weights in the type before it starts: theirs by `.to(dtype)`, ours by `cast_for_inference`. In fp32, the tokens
are held to be the same. `--static` gives transformers its static cache instead of the dynamic one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from benchmarks.training.output import machine, show
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.model.families.base import weights_from_hf
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.inference_weights import cast_for_inference
from pretextlm.model.transformer import Transformer

PROMPT, NEW = 32, 64
LLAMA = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 1408,
    "max_position_embeddings": 512,
}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt2, 6 × 512": lambda: GPT2LMHeadModel(GPT2Config(n_embd=512, n_layer=6, n_head=8)),
    "llama, 6 × 512": lambda: LlamaForCausalLM(LlamaConfig(vocab_size=32_000, **LLAMA)),
    "t5, 6 + 6 × 512": lambda: T5ForConditionalGeneration(T5Config(vocab_size=32_128, d_ff=2048)),
}


def ours_of(model: Any) -> Transformer:
    """Our model with the weights of theirs."""
    family = FAMILIES[model.config.model_type]()
    theirs = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    config = family.adjust_config(family.config_from_hf(model.config.to_dict()), theirs)
    ours = Transformer(config)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    found = weights_from_hf(family, config, theirs, shapes)
    assert not found.missing, found.missing
    ours.load_state_dict(found.weights, strict=False)
    return ours.eval()


def seconds(write: Callable[[], Any]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    write()
    return clock() - start


def measure(name: str, batch: int, dtype: torch.dtype, turns: int, cache: str | None = None) -> dict[str, Any]:
    """Tokens a second of both."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    ours, size = cast_for_inference(ours_of(model), dtype), model.config.vocab_size
    model = model.to(dtype)
    ids = torch.randint(10, size, (batch, PROMPT))
    vocabulary = Vocabulary(size, 0, 1, 2, 3, 4, 5, 6, (7, 8, 9), frozenset(range(10)))
    settings = GenerationConfig(max_new_tokens=NEW, temperature=0, stop=(), suppress=())
    model.generation_config.eos_token_id = None
    reads = ours.encoder is not None
    starts = [[0]] * batch if reads else None

    def we() -> list[list[int]]:
        return generate(ours, vocabulary, ids.tolist(), settings, starts, dtype=dtype)

    def they() -> list[list[int]]:
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
            decoder_start_token_id=0 if reads else None,
            cache_implementation=cache,
        )
        texts: list[list[int]] = found[:, 1 if reads else PROMPT :].tolist()
        return texts

    mine, yours = we(), they()
    if dtype == torch.float32:
        assert mine == yours, "the two write different tokens"
    assert all(len(text) == NEW for text in (*mine, *yours))
    times = [(seconds(we), seconds(they)) for _ in range(turns)]
    best = [batch * NEW / min(column) for column in zip(*times, strict=True)]
    kind = str(dtype).removeprefix("torch.")
    return {
        "model": name,
        "batch": batch,
        "dtype": kind,
        "ours": best[0],
        "transformers": best[1],
        "ratio": best[0] / best[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--static", action="store_true", help="transformers with its static cache")
    parser.add_argument("--models", nargs="*", default=list(MODELS), metavar="MODEL", help="names as in the table")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cache = "static" if options.static else None
    types = (torch.float32, torch.bfloat16)
    cases = [(name, batch, dtype) for name in options.models for batch in (1, 16) for dtype in types]
    found = [measure(*case, options.turns, cache) for case in cases]
    if options.json:
        print(json.dumps({"machine": machine(), "results": found}))
        return
    rows = [
        [
            one["model"],
            str(one["batch"]),
            one["dtype"],
            *(f"{one[key]:.1f}" for key in ("ours", "transformers")),
            f"{one['ratio']:.2f}",
        ]
        for one in found
    ]
    show("Tokens written per second", ["model", "batch", "type", "ours", "transformers", "ratio"], rows)


if __name__ == "__main__":
    main()
