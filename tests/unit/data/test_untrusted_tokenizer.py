"""Foreign tokenizers: what would hang, eat memory, encode at random or change when it is written is refused, soon."""

import json
import signal
import subprocess
import sys
import time

import pytest
from tests.foreign import word_pieces
from tokenizers import Tokenizer, models

from pretextlm.data.encode import TextEncoder
from pretextlm.data.prepare import prepare
from pretextlm.data.tokenizer import adopt_tokenizer, from_json, load_tokenizer, train_tokenizer
from pretextlm.data.untrusted_tokenizer import check_tokenizer_json
from pretextlm.errors import UserError
from pretextlm.hf.import_tokenizer import import_tokenizer


def values_of(tokenizer: Tokenizer) -> dict:
    return json.loads(tokenizer.to_str())


def bpe(**options: object) -> dict:
    pieces = {piece: index for index, piece in enumerate(["a", "b", "x", "y", "ab", "xx", "[UNK]"])}
    merges = [("a", "b"), ("x", "x")]
    return values_of(Tokenizer(models.BPE(pieces, merges, unk_token="[UNK]", **options)))


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def replace(pattern: dict, content: str) -> dict:
    return {"type": "Replace", "pattern": pattern, "content": content}


def sequence(*steps: dict) -> dict:
    return {"type": "Sequence", "normalizers": list(steps)}


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 100_000,
    "pair": [],
    "special_tokens": {},
}
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
HOSTILE = {
    "a hundred thousand templates": ({"post_processor": TEMPLATE}, "'single' of TemplateProcessing has 100,000"),
    "forty doublings": ({"normalizer": sequence(*[replace({"String": "a"}, "aa")] * 40)}, "may lengthen a text"),
    "a replacement of nothing": ({"normalizer": replace({"Regex": "x*"}, "y" * 100)}, "may lengthen a text 100 times"),
    "a thousand components": ({"normalizer": sequence(*[{"type": "NFC"}] * 101)}, "102 components"),
    "nested quantifiers": ({"pre_tokenizer": split("(x+x+)+y")}, "not a sound tokenizer"),
    "nested quantifiers at the end": ({"pre_tokenizer": split("(a+)+$")}, "not a sound tokenizer"),
    "alternatives": ({"pre_tokenizer": split("(a|a)*$")}, "not a sound tokenizer"),
    "a long pattern": ({"pre_tokenizer": split("(a|b)" * 60_000)}, "a pattern has 300,000 characters"),
    "an added token with an id of another": ({"added_tokens": [{"id": 0, "content": "[CLS]", **ADDED}]}, "the id 0"),
    "an id far away": ({"added_tokens": [{"id": 1 << 30, "content": "[CLS]", **ADDED}]}, "outside of a vocabulary"),
    "a negative id": ({"added_tokens": [{"id": -1, "content": "[CLS]", **ADDED}]}, "outside of a vocabulary"),
    "an id after a gap": ({"added_tokens": [{"id": 100, "content": "[CLS]", **ADDED}]}, "cannot have the id 100"),
    "deep nesting": (
        {"normalizer": json.loads('{"type":"Sequence","normalizers":[' * 200 + "]}" * 200)},
        "not a token",
    ),
    "a model of no kind": ({"model": 3}, "not a tokenizer.json"),
    "a vocabulary of text": ({"model": {"type": "BPE", "vocab": {"a": "1"}, "merges": []}}, "an id is no integer|str"),
}
MODELS = {
    "two tokens with one id": ({"vocab": {"a": 0, "b": 0, "[UNK]": 1}, "merges": []}, "two tokens have one id"),
    "an id outside": ({"vocab": {"a": 0, "[UNK]": 9999}, "merges": []}, "9999 is outside of a vocabulary of 2 tokens"),
    "dropout": ({"dropout": 0.1}, 'at random .BPE dropout 0.1.*write "dropout": null'),
}


def written(place, values: dict):
    place.mkdir()
    (place / "tokenizer.json").write_text(json.dumps(values))
    return place


def refused_soon(place, match: str) -> None:
    for read in (adopt_tokenizer, import_tokenizer):
        start = time.process_time()
        with pytest.raises(UserError, match=match) as caught:
            read(place)
        assert time.process_time() - start < 2
        assert str(place) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_tokenizer_is_refused_soon(tmp_path, case):
    parts, match = HOSTILE[case]
    refused_soon(written(tmp_path / "model", {**bpe(), **parts}), match)


@pytest.mark.parametrize("case", MODELS)
def test_a_hostile_vocabulary_is_refused(tmp_path, case):
    parts, match = MODELS[case]
    values = bpe()
    place = written(tmp_path / "model", {**values, "model": {**values["model"], **parts}})
    refused_soon(place, match)
    with pytest.raises(UserError, match=match):
        load_tokenizer(place / "tokenizer.json")  # as that of a run or a store


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"added_tokens": [' + '{"content": "a"},' * 100_001 + "]}", "adds more than 100,000 tokens"),
        ("[" + "1," * 5_000_001 + "1]", "more than 5,000,000 values"),
        ('{"model": 1, "model": 2}', "a key occurs twice"),
        ('{"model":' * 5000, "nested too deeply|Expecting"),
        ('{"model": {"vocab": {"a": ' + "1" * 10_000 + "}}}", "."),
    ],
    ids=["ten million added tokens", "many values", "a key twice", "deep", "a long number"],
)
def test_a_file_of_no_tokenizer_is_refused_before_anything_is_built_of_it(text, match):
    with pytest.raises(UserError, match=match):
        check_tokenizer_json(text, "tokenizer.json")


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [("while True: pass", -signal.SIGPROF, ""), ("bytes(2 << 30)", 1, "MemoryError"), ("bytes(256 << 20)", 0, "")],
)
def test_the_process_that_tries_a_tokenizer_out_ends_at_its_limits(work, code, said):
    program = f"from pretextlm.data.tokenizer_probe import limit_process\nlimit_process(0)\n{work}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == code
    assert said in done.stderr.decode()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "character"])
def test_our_own_tokenizers_are_sound(tmp_path, kind):
    texts = ["나는 밥을 먹었다. The café 😀 is open.\n"] * 20
    tokenizer = train_tokenizer(kind, texts, 900, sentinels=10)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    adopted = adopt_tokenizer(tmp_path)
    assert adopted.encode(texts[0]).ids == tokenizer.encode(texts[0]).ids
    assert adopted.get_vocab() == tokenizer.get_vocab()


def test_sentencepiece_replacements_and_long_words_are_sound(tmp_path):
    """Llama's and XLM-RoBERTa's normalizers lengthen nothing; words that are too long become unknown."""
    steps = sequence(
        {"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁"), replace({"Regex": " {2,}"}, " ")
    )
    assert adopt_tokenizer(written(tmp_path / "a", {**bpe(), "normalizer": steps}))
    values = values_of(word_pieces())
    values["model"]["max_input_chars_per_word"] = 10**9
    tokenizer = adopt_tokenizer(written(tmp_path / "b", values))
    start = time.perf_counter()
    assert tokenizer.encode("a" * 20_000, add_special_tokens=False).tokens == ["[UNK]"]
    assert time.perf_counter() - start < 2


def test_a_panic_on_a_real_text_names_the_tokenizer():
    """A pattern that is harmless on every probe may still fail on a corpus, also in a run or a store of anybody's."""
    values = bpe()
    values["pre_tokenizer"] = split("(q+q+)+z")
    tokenizer = from_json(json.dumps(values), "it")
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[MASK]", "<s>", "</s>"])
    with pytest.raises(UserError, match="The tokenizer fails on this text"):
        TextEncoder(tokenizer).encode(["q" * 5000])


def test_two_preparations_with_one_foreign_tokenizer_are_equal(tmp_path):
    (tmp_path / "text.txt").write_text("".join(f"ab xx a b {'a' * n}\n" for n in range(50)))
    place = written(tmp_path / "model", {**bpe(), "pre_tokenizer": {"type": "Whitespace"}})
    stores = [
        prepare(tmp_path / "text.txt", tmp_path / name, tokenizer=place, text_mode="lines", validation=0.5)
        for name in ("one", "two")
    ]
    assert (stores[0].path / "tokenizer.json").read_bytes() == (stores[1].path / "tokenizer.json").read_bytes()
    assert stores[0].train.tokens.tolist() == stores[1].train.tokens.tolist()
