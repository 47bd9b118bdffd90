"""Directories without tokenizer.json give the ids of transformers, on English, Korean, code and emoji."""

import json
import unicodedata

import pytest
from tests.builders import documents

from pretextlm.data.offset_mapping import OffsetTokenizer
from pretextlm.hf.import_tokenizer import import_tokenizer
from pretextlm.hf.tokenizer_settings import TokenizerSettings

transformers = pytest.importorskip("transformers", reason="the ids are those of transformers")

KOREAN = ["바다에 배가 있다.", "강을 건너는 다리, 그리고 집!", "중국 中国 사람들", "é́ decomposed 한국"]
ODD = [
    "  two  spaces ",
    "def f(x):\n\treturn x[0] != {'a': 1}",
    "🚀🙂 ok",
    "Möchte schön ÜBER",
    "",
    "a\u2028b\u0085c\x1cd",
    "<s> [MASK]",
]
TEXTS = [*documents(150), *(text * n for text in [*KOREAN, *ODD] for n in (1, 2, 5, 9, 20))]
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßé"
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *".,!", *(f"##{one}" for one in LETTERS)]
WORDS = [
    "schön",
    "schon",
    "möchte",
    "mochte",
    "über",
    "uber",
    "the",
    "The",
    "中",
    "国",
    "中国",
    "바다",
    "배",
    "weg",
    "weg",
]


def word_pieces(place, separators=(), end="\n"):
    place.joinpath("vocab.txt").write_bytes((end.join([*PIECES, *separators, *WORDS]) + end).encode())
    return "bert", "BertTokenizer"


def byte_level(place):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.model.save(str(place))
    return "gpt2", "GPT2Tokenizer"


def roberta(place):
    byte_level(place)
    return "roberta", "RobertaTokenizer"


def sentence_pieces(place, name="spiece.model", **options):
    sentencepiece = pytest.importorskip("sentencepiece", reason="it trains the vocabulary")
    (place / "text.txt").write_text("\n".join(text.replace("\n", " ") for text in TEXTS))
    options = {"vocab_size": 300, "model_type": "unigram", "minloglevel": 2, "hard_vocab_limit": False, **options}
    sentencepiece.SentencePieceTrainer.train(
        input=str(place / "text.txt"), model_prefix=str(place / "sp"), character_coverage=0.995, **options
    )
    (place / "sp.model").rename(place / name)
    return "t5", "T5Tokenizer"


def t5(place):
    return sentence_pieces(place, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)


def llama(place):
    sentence_pieces(
        place,
        "tokenizer.model",
        model_type="bpe",
        byte_fallback=True,
        vocab_size=700,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
    )
    return "llama", "LlamaTokenizer"


CASES = {
    "vocab.txt": (word_pieces, {}),
    "vocab.txt, accents kept": (word_pieces, {"strip_accents": False}),
    "vocab.txt, cased": (word_pieces, {"do_lower_case": False}),
    "vocab.txt, cased without accents": (word_pieces, {"do_lower_case": False, "strip_accents": True}),
    "vocab.txt, ideographs together": (word_pieces, {"tokenize_chinese_chars": False}),
    "vocab.txt, never_split": (word_pieces, {"never_split": ["The"], "do_basic_tokenize": True}),
    "vocab.txt with other line separators": (lambda place: word_pieces(place, ["\u2028", "\x85", "\x1c", "\x0b"]), {}),
    "vocab.txt, CRLF": (lambda place: word_pieces(place, end="\r\n"), {}),
    "vocab.json": (byte_level, {}),
    "vocab.json, space before": (byte_level, {"add_prefix_space": True}),
    "vocab.json of RoBERTa": (roberta, {}),
    "spiece.model": (t5, {"extra_ids": 10}),
    "tokenizer.model": (llama, {}),
    "tokenizer.model, not legacy": (llama, {"legacy": False}),
    "tokenizer.model, without a space before": (llama, {"legacy": False, "add_prefix_space": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_transformers(case, tmp_path):
    make, settings = CASES[case]
    family, tokenizer_class = make(tmp_path)
    values = {"model_type": family}
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class, **settings}))
    ours = import_tokenizer(tmp_path)
    TokenizerSettings(tmp_path, values, ours.tokenizer).apply_options()
    ours.tokenizer.encode_special_tokens = False
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(TEXTS) >= 200
    for text in TEXTS:
        if any(token in text for token in ours.added):
            continue  # special tokens that the import added
        expected = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.tokenizer.encode(text, add_special_tokens=False).ids == expected, text


def test_places_under_a_precompiled_normaliser_are_those_of_the_text_as_it_was_given(tmp_path):
    family, tokenizer_class = t5(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    encoder = OffsetTokenizer(import_tokenizer(tmp_path).tokenizer)
    for form in ("NFC", "NFD"):
        words = [unicodedata.normalize(form, word) for word in ("바다에", "é́decomposed", "ship", "하늘이")]
        for space in (" ", "\u3000", "\u00a0"):
            text = space.join(words)
            places = encoder.encode([text]).places
            for word in words:
                begin = text.index(word)
                inside = places[(places[:, 0] < begin + len(word)) & (places[:, 1] > begin)]
                assert text[inside[:, 0].min() : inside[:, 1].max()] == word
