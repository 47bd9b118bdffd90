"""Small published models with tokenizers of many settings, and texts for them: text in, answer out."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.builders import sentences
from tests.foreign import BERT
from tests.parity.families import randomised
from tests.parity.fine_tuned import CONFIGS as FINE_TUNED
from tests.parity.fine_tuned import LLAMA, SHAPE
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

transformers = pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

KOREAN = [
    "나는 어제 강가에서 오래된 배를 보았다.",
    "선생님은 아이들에게 책을 읽어 주었다.",
    "겨울에는 마을이 아주 조용하다.",
]
CODE = ["def add(a, b):\n    return a + b", "for i in range(10):\n\tprint(i)", "if x != y: x <= 3  # [MASK] </s>"]
ODD = [
    "",
    " ",
    "🙂👍🏽 ok",
    "  two  spaces ",
    "ÄÖÜ naïve café",
    "<s> a </s> b",
    "[CLS] [SEP] [MASK]",
    "x" * 40,
    "A\u00a0b\u200bc",
]
PLACES = 64
"""Longest input of the models, special tokens included."""


@cache
def texts(count: int = 200, seed: int = 0) -> list[str]:
    """English, Korean, code, emoji, marks of special tokens, long and empty texts."""
    rng = np.random.default_rng(seed)
    english = sentences(count, seed)
    pool = [*english, *ODD * 4, *KOREAN * 8, *CODE * 6, *(" ".join(english[i : i + 9]) for i in range(0, 40, 9))]
    return [pool[i] for i in rng.permutation(len(pool))[:count]]


SPECIAL = {
    "cased": ["<pad>", "<s>", "</s>", "<unk>", "<mask>"],
    "lower": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "other": ["<P>", "<U>", "<C>", "<X>", "<M>"],
    "llama": ["<unk>", "<s>", "</s>"],
    "bare": ["<|endoftext|>"],
}


def _trained(kind: str, special: list[str]) -> Tokenizer:
    corpus = [*sentences(120), *KOREAN, *CODE, "ÄÖÜ naïve café ok two spaces"]
    common: dict[str, Any] = {"vocab_size": 330, "special_tokens": special, "show_progress": False}
    if kind == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(**common, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    elif kind == "pieces":
        tokenizer = Tokenizer(models.WordPiece(unk_token=special[1]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**common)
    else:
        unk = next(token for token in special if "u" in token.lower() and "q" not in token)
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(**common, unk_token=unk)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def _template(single: str, pair: str, tokenizer: Tokenizer) -> Any:
    ids = {word.partition(":")[0] for word in f"{single} {pair}".split()} - {"$A", "$B"}
    return processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, tokenizer.token_to_id(token)) for token in sorted(ids)]
    )


@cache
def tokenizer_of(name: str) -> tuple[Tokenizer, dict[str, Any]]:
    """(tokenizer, values of its tokenizer_config.json)."""
    generic: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if name == "bert":  # without settings: the class of the family adds [CLS] and [SEP]
        return _trained("pieces", SPECIAL["lower"]), {}
    if name == "roberta":
        tokenizer = _trained("bytes", SPECIAL["cased"])
        tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), add_prefix_space=False)
        names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
        mask = {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "rstrip": False, "normalized": False}
        mask |= {"single_word": False, "special": True}
        return tokenizer, {**generic, **{f"{k}_token": v for k, v in names.items()}, "mask_token": mask}
    if name == "other":  # names that say nothing, a template of its own with token types, added tokens of each kind
        tokenizer = _trained("unigram", SPECIAL["other"])
        more = [
            AddedToken("river", single_word=True, normalized=True),
            AddedToken("bread", lstrip=True, normalized=False),
            AddedToken("Nobody", rstrip=True, normalized=False),
        ]
        tokenizer.add_tokens(more)
        tokenizer.post_processor = _template("<C> $A <X> <X>", "<C>:1 $A:0 <X>:0 <C>:1 $B:1 <X>:0", tokenizer)
        names = {"pad": "<P>", "unk": "<U>", "cls": "<C>", "sep": "<X>", "mask": "<M>"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return tokenizer, {**generic, **{f"{k}_token": v for k, v in names.items()}, "model_input_names": inputs}
    if name == "xlm":
        tokenizer = _trained("unigram", SPECIAL["cased"])
        tokenizer.post_processor = _template("<s> $A </s>", "<s> $A </s> </s> $B </s>", tokenizer)
        names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
        return tokenizer, {**generic, **{f"{k}_token": v for k, v in names.items()}, "mask_token": "<mask>"}
    if name == "bare":  # nothing is added, and padding is the end of a text
        end = "<|endoftext|>"
        return _trained("bytes", SPECIAL["bare"]), {**generic, "bos_token": end, "eos_token": end, "pad_token": end}
    if name == "begins":  # add_bos_token has no effect beside a post-processor
        tokenizer = _trained("unigram", SPECIAL["llama"])
        tokenizer.post_processor = _template("<s> $A", "<s> $A <s> $B", tokenizer)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
        return tokenizer, {**generic, **names, "add_bos_token": False, "add_eos_token": True}
    if name == "ends":  # <s> and </s>, of which </s> is padding, too
        tokenizer = _trained("bytes", SPECIAL["llama"])
        tokenizer.post_processor = _template("<s> $A </s>", "<s> $A </s> <s> $B </s>", tokenizer)
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
        return tokenizer, {**generic, **names}
    if name == "t5":
        tokenizer = _trained("unigram", ["<pad>", "</s>", "<unk>"])
        tokenizer.post_processor = _template("$A </s>", "$A </s> $B </s>", tokenizer)
        return tokenizer, {**generic, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    assert name == "mbart", name
    tokenizer = _trained("unigram", [*SPECIAL["cased"], "en_XX", "ko_KR"])
    tokenizer.post_processor = _template("$A </s> en_XX", "$A $B </s> en_XX", tokenizer)
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>"}
    return tokenizer, {**generic, **{f"{k}_token": v for k, v in names.items()}, "mask_token": "<mask>"}


TOKENIZERS = {
    "albert": "other",
    "bert": "bert",
    "big_bird": "other",
    "deberta-v2": "other",
    "distilbert": "bert",
    "electra": "other",
    "longformer": "roberta",
    "modernbert": "roberta",
    "roberta": "roberta",
    "xlm-roberta": "xlm",
    "gemma": "begins",
    "gemma2": "begins",
    "gpt2": "bare",
    "llama": "ends",
    "mistral": "begins",
    "openai-gpt": "bare",
    "qwen2": "bare",
    "qwen3": "ends",
    "bart": "roberta",
    "mbart": "mbart",
    "mt5": "t5",
    "t5": "t5",
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "forced_eos_token_id": None,
}
CONFIGS = {
    **FINE_TUNED,
    "big_bird": ("BigBirdConfig", {**SHAPE, "attention_type": "original_full"}),
    "longformer": ("LongformerConfig", {**SHAPE, "attention_window": [128, 128], "type_vocab_size": 1}),
    "modernbert": (
        "ModernBertConfig",
        {**{k: LLAMA[k] for k in LLAMA if k not in ("num_key_value_heads", "head_dim")}},
    ),
    "t5": ("T5Config", {**T5, "feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5Config", T5),
    "bart": ("BartConfig", BART),
    "mbart": ("MBartConfig", BART),
}
FAIRSEQ = ("roberta", "xlm-roberta", "longformer")
"""Families whose positions begin after the padding id."""


def published(family: str, theirs: str, place: Path, **changes: Any) -> Any:
    """A random model of a class of transformers, saved with its tokenizer; its answers differ from text to text."""
    tokenizer, settings = tokenizer_of(TOKENIZERS[family])
    place.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(place / "tokenizer.json"))
    if settings:
        (place / "tokenizer_config.json").write_text(json.dumps(settings))
    name, shape = CONFIGS[family]
    fast = transformers.AutoTokenizer.from_pretrained(place) if settings else None
    ids = {f"{role}_token_id": getattr(fast, f"{role}_token_id", None) for role in ("pad", "bos", "eos")}
    ids = {key: index for key, index in ids.items() if index is not None} or {"pad_token_id": BERT["pad_token_id"]}
    pad = ids["pad_token_id"]
    table = PLACES + (pad + 1 if family in FAIRSEQ else 0)
    lengths = {k: table for k in ("max_position_embeddings", "n_positions") if family not in ("t5", "mt5")}
    values = {**shape, **lengths, **ids, "vocab_size": tokenizer.get_vocab_size(), **changes}
    model = randomised(getattr(transformers, theirs)(getattr(transformers, name)(**values)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.5 if parameter.ndim == 2 else 1)
    model.save_pretrained(place)
    return model
