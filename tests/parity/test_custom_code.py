"""The code beside an exported model computes what our Transformer does, whatever the model is built of."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.parity.families import our_states, randomised

from pretextlm.data.vocabulary import Vocabulary
from pretextlm.hf import custom_code
from pretextlm.model.config import ModelConfig
from pretextlm.model.families.base import hf_config_values, weights_to_hf
from pretextlm.model.families.pretextlm import PretextLM
from pretextlm.model.generation import GenerationConfig, generate
from pretextlm.model.transformer import Transformer

pytest.importorskip("transformers", reason="the code is for it (extra hub)")

SIZE, PAD, BOS, EOS = 61, 0, 1, 2
VOCABULARY = Vocabulary(SIZE, PAD, 3, 4, 5, 6, BOS, EOS, (7, 8), frozenset(range(9)))
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CLASSES = {"encoder": "MaskedLM", "decoder": "CausalLM", "encoder_decoder": "Seq2SeqLM"}
LAYER_NORM = {"kind": "layer", "weight": True, "bias": True, "eps": 1e-5}
BIASES = {"bias": True, "output_bias": True}
SHAPES: dict[str, dict[str, Any]] = {
    "default": {"logit_softcap": 15.0},
    "grouped": {"num_key_value_heads": 2, "head_dim": 10, "tie_word_embeddings": False, "attention": {"scale": 0.2}},
    "weights": {"norm": {"weight": True}, "attention": {"qk_norm_weight": True}, "feed_forward": {"gated": True}},
    "bert": {
        "norm": {**LAYER_NORM, "placement": "post"},
        "positions": {"kind": "learned", "max_position_embeddings": 40, "offset": 2},
        "attention": {"qk_norm": False, **BIASES},
        "feed_forward": {"activation": "gelu", "bias": True},
        "type_vocab_size": 2,
        "final_norm": False,
        "embedding_size": 16,
        "embedding": {"projection_bias": True},
        "head": {"dense": True, "activation": "gelu", "norm": True, "bias": True},
    },
    "gemma2": {
        "norm": {"weight": True, "unit_offset": True, "placement": "both"},
        "attention": {"softcap": 3.0, "sliding_windows": (4, 0), "scale": 0.3, "qk_norm": False},
        "feed_forward": {"activation": "gelu_tanh", "gated": True},
        "embedding": {"norm": False, "scale": 4.0},
        "num_key_value_heads": 2,
    },
    "modernbert": {
        "norm": {"kind": "layer", "weight": True, "first_layer": False},
        "positions": {"rope_theta": 1000.0, "local_rope_theta": 50.0},
        "attention": {"sliding_windows": (0, 6, 6)},
        "num_hidden_layers": 3,
    },
    "t5": {"positions": {"kind": "relative", "num_buckets": 8, "max_distance": 12}, "head": {"scale": 0.2}},
    "sentinels": {
        "sentinel_states": True,
        "sentinel_ids": (9, SIZE - 1),
    },  # many a token is in the source
    "alibi": {"positions": {"kind": "alibi"}, "num_attention_heads": 3, "hidden_size": 24},
    "bart": {
        "norm": {**LAYER_NORM, "placement": "post"},
        "positions": {"kind": "sinusoidal", "max_position_embeddings": 40, "offset": 2},
        "embedding": {"separate_decoder": True},
        "head": {"bias": True},
    },
    "shared": {"share_layers": True, "num_hidden_layers": 3, "positions": {"kind": "none"}},
    "yarn": {
        "positions": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "high_freq_factor": 32.0}},
        "attention": {"sliding_windows": (0, 5)},
    },
    "llama3": {"positions": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}},
    "long": {
        "positions": {"partial_rotary_factor": 0.5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "feed_forward": {"activation": "silu"},
    },
}
ALONE = ("default", "bert", "gemma2", "modernbert", "t5")
CASES = [("encoder_decoder", name) for name in SHAPES] + [(k, n) for k in ("encoder", "decoder") for n in ALONE]


@pytest.fixture(scope="module")
def code():
    """The file as a module, which reads it only once for all cases."""
    place = Path(custom_code.__file__).with_name(custom_code.CODE)
    spec = importlib.util.spec_from_file_location("the_code", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules["the_code"] = module  # where transformers looks for the file of a class
    spec.loader.exec_module(module)
    yield module
    del sys.modules["the_code"]


def both(code, place: Path, kind: str, name: str, visibility: str = "causal", **more: Any) -> tuple[Any, Any]:
    """(our model, theirs as loaded from a directory) of one shape with random weights.

    With `sharp`, of weights so large that it does not write one token again and again.
    """
    base = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": SIZE}
    given = base | {"architecture": kind} | SHAPES[name]
    config = ModelConfig.parse(given | ({"num_decoder_layers": 4} if kind == "encoder_decoder" else {}))
    ours = randomised(Transformer(config))
    if more.get("sharp"):
        for name_of, parameter in ours.named_parameters():
            parameter.data.mul_(8 if parameter.ndim == 2 and "_proj" in name_of else 1)
            if name_of == "embed_tokens.weight":
                parameter.data.div_(parameter.norm(dim=1, keepdim=True))
    family = PretextLM()
    ids = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "decoder_start_token_id": BOS}
    values = hf_config_values(family, config) | ids | {"visibility": visibility}
    (place / "config.json").write_text(json.dumps(values))
    save_file(weights_to_hf(family, config, ours.state_dict()), place / "model.safetensors", metadata={"format": "pt"})
    theirs = getattr(code, more.get("class_name", f"PretextFor{CLASSES[kind]}"))
    return ours, theirs.from_pretrained(place).eval()


def logits(ours: Transformer, **arrays: Any) -> torch.Tensor:
    """(B, T, V) of all positions."""
    with torch.inference_mode():
        return ours.logits(our_states(ours, **arrays))


def rows(lengths, left: bool, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask) of random texts, padded on one side."""
    rng, width = np.random.default_rng(seed), max(lengths)
    ids, mask = np.full((len(lengths), width), PAD), np.zeros((len(lengths), width), int)
    for row, length in enumerate(lengths):
        here = slice(width - length, width) if left else slice(0, length)
        ids[row, here], mask[row, here] = rng.integers(9, SIZE, length), 1
    return torch.tensor(ids), torch.tensor(mask)


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_logits_of_padded_rows_equal_those_of_each_text_alone(code, tmp_path, kind, name):
    ours, theirs = both(code, tmp_path, kind, name)
    typed = ours.config.type_vocab_size > 1
    for left in (False, True):
        ids, mask = rows((13, 5, 9), left)
        types = (ids % 2) * mask
        target, target_mask = rows((4, 7, 7), False, seed=1)
        more = {"decoder_input_ids": target, "decoder_attention_mask": target_mask} if kind == "encoder_decoder" else {}
        more |= {"token_type_ids": types} if typed else {}
        with torch.no_grad():
            found = theirs(ids, attention_mask=mask, **more)
        for row, (length, wide) in enumerate(zip((13, 5, 9), (4, 7, 7), strict=True)):
            text, shown = ids[row][mask[row] == 1], mask[row] == 1
            alone = {"input_ids": text[None], "attention": "causal" if kind == "decoder" else "bidirectional"}
            alone |= {"token_type_ids": types[row][shown][None]} if typed else {}
            if kind == "encoder_decoder":
                alone |= {"decoder_input_ids": target[row, :wide][None]}
                shown = target_mask[row] == 1
            expected = logits(ours, **alone)[0]
            torch.testing.assert_close(found.logits[row][shown], expected, **CLOSE)
            assert len(text) == length


@pytest.mark.parametrize("name", ["default", "t5"])
@pytest.mark.parametrize("visibility", ["bidirectional", "prefix"])
def test_decoders_that_read_in_both_directions(code, tmp_path, name, visibility):
    named = {"class_name": "PretextModel"} if visibility == "bidirectional" else {}
    ours, theirs = both(code, tmp_path, "decoder", name, visibility, **named)
    ids, _ = rows((12, 12), False)
    with torch.no_grad():
        if visibility == "bidirectional":
            found, expected = theirs(ids)[0], our_states(ours, input_ids=ids, attention="bidirectional")
        else:
            found = theirs(ids, prefix_length=torch.tensor([5, 8])).logits
            prefix = np.repeat([[5], [8]], 12, axis=1)
            expected = logits(ours, input_ids=ids, attention="prefix", prefix=prefix)
    torch.testing.assert_close(found, expected, **CLOSE)
    if visibility == "bidirectional":
        with pytest.raises(ValueError, match="both directions"):
            code.PretextForCausalLM(theirs.config)


GENERATING = [("encoder_decoder", name, "causal") for name in ("default", "bert", "t5", "bart", "shared", "sentinels")]
GENERATING += [("decoder", name, "causal") for name in ("default", "bert", "gemma2", "yarn")]
GENERATING += [("decoder", name, "prefix") for name in ("default", "t5", "bert")]


@pytest.mark.parametrize(("kind", "name", "visibility"), GENERATING)
def test_generation_with_a_cache_writes_our_tokens(code, tmp_path, kind, name, visibility):
    ours, theirs = both(code, tmp_path, kind, name, visibility, sharp=True)
    ids, mask = rows((9, 3, 6), True)
    prompts = [ids[row][mask[row] == 1].tolist() for row in range(3)]
    starts = {"encoder_decoder": [[BOS]] * 3, "prefix": [prompt[-1:] for prompt in prompts]}.get(
        kind if kind == "encoder_decoder" else visibility
    )
    for beams in (1, 3):
        settings = GenerationConfig(max_new_tokens=10, temperature=0.0, beams=beams, suppress=(PAD,))
        expected = generate(ours, VOCABULARY, prompts, settings, starts, reread=visibility == "prefix")
        for cached in (True, False) if name == "default" else (True,):
            found = theirs.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=10,
                num_beams=beams,
                do_sample=False,
                use_cache=cached,
                suppress_tokens=[PAD],
            )
            begin = 1 if kind == "encoder_decoder" else ids.shape[1]
            assert [until_end(row[begin:].tolist()) for row in found] == expected
        assert len({tuple(text) for text in expected}) > 1


def until_end(tokens: list[int]) -> list[int]:
    """The tokens before the end token or padding."""
    return tokens[: next((place for place, token in enumerate(tokens) if token in (EOS, PAD)), len(tokens))]


def test_saved_again_and_trained(code, tmp_path):
    _, theirs = both(code, tmp_path, "encoder_decoder", "bart")
    theirs.save_pretrained(tmp_path / "again")
    again = code.PretextForSeq2SeqLM.from_pretrained(tmp_path / "again")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    again.gradient_checkpointing_enable()
    ids, mask = rows((7, 4), False)
    labels = ids.masked_fill(mask == 0, -100)
    loss = again.train()(ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    shifted = torch.cat([torch.full((2, 1), BOS), ids[:, :-1]], dim=1)
    with torch.no_grad():
        found = theirs(ids, attention_mask=mask, decoder_input_ids=shifted).logits
    expected = torch.nn.functional.cross_entropy(found[labels >= 0], labels[labels >= 0])
    torch.testing.assert_close(loss.detach(), expected, **CLOSE)
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in again.named_parameters() if "k_proj.bias" not in n
    )


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"positions": {"kind": "disentangled"}}, "disentangled"),
        ({"attention": {"block_size": 8}, "positions": {"kind": "none"}}, "block-sparse"),
        ({"positions": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}}, "dynamic"),
        ({"attention": {"global_tokens": 1}}, "global"),
    ],
)
def test_parts_that_the_code_lacks_are_refused(part, reason):
    config = ModelConfig.parse({"architecture": "encoder", "vocab_size": SIZE, **part})
    assert reason in custom_code.supports(config)
