"""Small foreign directories for tests, in Hugging Face's format, without the need of transformers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from pretextlm.model.families.base import hf_config_values, weights_to_hf
from pretextlm.model.families.registry import FAMILIES
from pretextlm.model.transformer import Transformer

WORDS = ["the", "a", "ship", "sail", "old", "river", "##s", "##ed", ".", ",", "[", "]", "cl", "##s", "mask", "?", "##?"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.25,
    "tie_word_embeddings": True,
}


def word_pieces() -> Tokenizer:
    """A lower-casing word-piece tokenizer whose text cannot spell a special token."""
    pieces = dict.fromkeys([*SPECIAL, *WORDS, *"bcdefghijklmnopqrstuvwxyz", *(f"##{c}" for c in "acdeghilmnoprtuwy")])
    tokenizer = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def bert_directory(directory: Path, **changes: Any) -> Path:
    """A sound one, with random weights; `changes` are values of its config.json alone."""
    directory.mkdir(parents=True, exist_ok=True)
    family = FAMILIES["bert"]()
    config = family.config_from_hf(BERT)
    model = Transformer(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    weights = weights_to_hf(family, config, model.state_dict())
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    values = {**BERT, **hf_config_values(family, config, model.state_dict()), **changes}
    (directory / "config.json").write_text(json.dumps(values))
    word_pieces().save(str(directory / "tokenizer.json"))
    return directory


def raw_safetensors(header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None) -> bytes:
    """The bytes of a safetensors file with any header."""
    if isinstance(header, dict):
        header = json.dumps(header).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data
