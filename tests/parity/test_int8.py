"""Eight-bit weights: transformers loads what we write, and computes with it what we compute with what it stands for."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.families import imported, our_logits, randomised, their_logits

from pretextlm.errors import UserError
from pretextlm.hf import int8
from pretextlm.model.families.base import weights_from_hf, weights_to_hf
from pretextlm.model.families.registry import FAMILIES

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")
library = pytest.importorskip("compressed_tensors", reason="transformers reads the format with it (extra dev)")

SHAPE = {"vocab_size": 90, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 42}
BOTH = {"vocab_size": 90, "d_model": 24, "num_layers": 2, "num_heads": 4, "d_ff": 42, "d_kv": 6}
MODELS = {
    "LlamaForCausalLM": {**SHAPE, "num_key_value_heads": 2},
    "Qwen3ForCausalLM": {**SHAPE, "num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True},
    "NanoChatForCausalLM": {**SHAPE, "num_key_value_heads": 2},
    "BertForMaskedLM": SHAPE,
    "RobertaForMaskedLM": SHAPE,
    "AlbertForMaskedLM": {**SHAPE, "embedding_size": 12},
    "DebertaV2ForMaskedLM": {
        **SHAPE,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "ModernBertForMaskedLM": {**SHAPE, "pad_token_id": 0, "reference_compile": False, "deterministic_flash_attn": True},
    "T5ForConditionalGeneration": {**BOTH, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
}
IDS = np.random.default_rng(0).integers(5, 90, (2, 12))


@pytest.fixture(scope="module", params=MODELS)
def both(request, tmp_path_factory):
    """(our model with the weights that are stood for, transformers' of what is written, its report)."""
    kind = getattr(transformers, request.param)
    model = randomised(kind(kind.config_class(**MODELS[request.param])))
    directory = tmp_path_factory.mktemp("whole")
    ours, _ = imported(model, directory)
    family, config = FAMILIES[model.config.model_type](), ours.config
    patterns = int8.quantizable(family, config)
    form, written = int8.format_of(family, config), weights_to_hf(family, config, ours.state_dict())
    packed = int8.quantized_weights(written, patterns, family.prefix, form, torch.float32)
    out = tmp_path_factory.mktemp("packed")
    save_file(packed, out / "model.safetensors", metadata={"format": "pt"})
    values = json.loads((directory / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**values, int8.KEY: int8.settings(patterns, family.prefix, form)}))
    again, report = kind.from_pretrained(out, output_loading_info=True)
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    whole = int8.dequantized_weights(load_file(out / "model.safetensors"))
    ours.load_state_dict(weights_from_hf(family, config, whole, shapes).weights)
    return ours, again.eval(), report, packed, model


def test_transformers_finds_every_key_and_no_other(both):
    report = both[2]
    assert not report["missing_keys"], report
    assert not report["unexpected_keys"], report
    assert not report["mismatched_keys"], report


def test_the_logits_are_those_of_the_weights_that_are_stood_for(both):
    ours, again, *_, model = both
    if ours.config.architecture == "encoder_decoder":
        rows = {"input_ids": IDS, "decoder_input_ids": IDS[:, :5]}
        found = our_logits(ours, **rows)
    else:
        rows = {"input_ids": IDS}
        attention = {"decoder": "causal", "encoder": "bidirectional"}[ours.config.architecture]
        found = our_logits(ours, **rows, attention=attention)
    expected = their_logits(again, **rows)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert 0 < (their_logits(model, **rows) - expected).abs().max() < 0.2 * expected.abs().max()


def test_the_library_reads_the_same_integers_as_we_do(both):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32

    packed = both[3]
    for name in [name for name in packed if name.endswith(int8.PACKED)]:
        rows, columns = packed[name.removesuffix(int8.PACKED) + int8.SHAPE].tolist()
        q = unpack_from_int32(packed[name], 8, torch.Size((rows, columns)))
        assert torch.equal(q, int8.unpack(packed[name], columns))
        assert torch.equal(pack_to_int32(q, 8), packed[name])


def test_every_matrix_in_a_layer_is_integers_and_no_other_tensor_is(both):
    stored = both[3]
    whole = [name for name, tensor in stored.items() if tensor.is_floating_point() and tensor.ndim == 2]
    matrices = [name for name in whole if not name.endswith(int8.SCALE) and "bias" not in name]
    assert not [name for name in matrices if ".layer" in name or ".block" in name or "_layers" in name], matrices
    scaled = {name.removesuffix(int8.SCALE) for name in stored if name.endswith(int8.SCALE)}
    integers = {name for name, tensor in stored.items() if not tensor.is_floating_point()}
    assert {name.removesuffix(int8.PACKED).removesuffix(int8.SHAPE) for name in integers} == scaled


@pytest.mark.parametrize("kind", ["GPT2LMHeadModel", "OpenAIGPTLMHeadModel"])
def test_a_family_that_keeps_its_matrices_transposed_is_refused(kind):
    config = getattr(transformers, kind).config_class(n_embd=24, n_layer=1, n_head=4, vocab_size=90)
    family = FAMILIES[config.model_type]()
    with pytest.raises(UserError, match="Conv1D"):
        int8.quantizable(family, family.config_from_hf(config.to_dict()))
