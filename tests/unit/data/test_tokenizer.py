"""Tokenizers of all kinds: exact, repeatable, and deaf to special tokens written in a text."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing

from pretextlm.data.encode import TextEncoder
from pretextlm.data.prepare import PrepareConfig
from pretextlm.data.tokenizer import (
    KINDS,
    adopt_tokenizer,
    from_json,
    same_ids,
    special_tokens,
    train_tokenizer,
    vocabulary_of,
)
from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

ENGLISH = "The ship sailed at dawn, and nobody aboard knew where it was going. They were content.\n\n"
KOREAN = "배는 새벽에 떠났고 아무도 그 배가 어디로 가는지 몰랐다. 모두가 만족했다.\n"
TEXTS = [ENGLISH * 3, KOREAN * 3, "1984 and 2001: numbers! (and signs)"] * 5
HARD = [
    "Say [MASK] and </s>  then <extra_id_0>[PAD]<s> [UNK][CLS] [SEP]<extra_id_99>",
    " leading space, trailing space ",
    "## ### ⁀ _ ▁ Ġ Ċ\t\r\n \n\n   \x01",
    "日本語 中文 🙂🏳️‍🌈 é e\u0301 \u200b مرحبا हिन्दी",
    "x" * 1000 + " " * 300 + "가" * 500 + "!" * 300,
    "",
]
SHORT = [
    "The ship, unsinkable: sailed.",
    "배는 새벽에 떠났고 몰랐다.",
    "中文 ok",
    "One is here. Two follows! 셋은 이렇다. 넷.",
]


@pytest.fixture(scope="module", params=KINDS)
def encoder(request):
    """Characters are known only if they were seen; bytes always are."""
    return TextEncoder(
        train_tokenizer(request.param, [*TEXTS, *HARD, *SHORT] if request.param == "character" else TEXTS, 768)
    )


def test_every_text_comes_back_exactly_and_no_text_makes_a_special_token(encoder):
    special = vocabulary_of(encoder.tokenizer).special
    for text in [*HARD, *TEXTS]:
        ids = encoder.encode([text]).tokens.tolist()
        assert encoder.tokenizer.decode(ids, skip_special_tokens=False) == text
        assert not special.intersection(ids)


def test_special_tokens_are_the_first_ids_and_the_vocabulary_is_as_large_as_asked(encoder):
    vocabulary = vocabulary_of(encoder.tokenizer)
    assert vocabulary.size <= 768
    assert [encoder.tokenizer.id_to_token(i) for i in range(len(special_tokens()))] == special_tokens()
    assert vocabulary.special == frozenset(range(len(special_tokens())))
    assert (vocabulary.pad, vocabulary.mask, vocabulary.sentinels[:2]) == (0, 4, (7, 8))


def test_saving_and_loading_changes_nothing(encoder):
    loaded = TextEncoder(from_json(encoder.tokenizer.to_str(), "a test"))
    for text in HARD:
        assert loaded.encode([text]).tokens.tolist() == encoder.encode([text]).tokens.tolist()


def test_the_fast_path_by_bytes_equals_the_path_by_offsets(encoder):
    other = from_json(encoder.tokenizer.to_str(), "a test")
    other.add_tokens(["\u2603 in no text"])  # such tokens may differ from their text, so offsets are asked for
    slow = TextEncoder(other)
    fast, other = encoder.encode(TEXTS + HARD), slow.encode(TEXTS + HARD)
    for name in ("tokens", "word_starts", "lengths", "document_bytes", "sentences"):
        assert np.array_equal(getattr(fast, name), getattr(other, name)), name


def test_documents_encoded_together_are_as_encoded_alone(encoder):
    together = encoder.encode(TEXTS[:3] + HARD)
    alone = [encoder.encode([text]) for text in TEXTS[:3] + HARD]
    assert np.array_equal(together.tokens, np.concatenate([chunk.tokens for chunk in alone]))
    assert np.array_equal(together.word_starts, np.concatenate([chunk.word_starts for chunk in alone]))
    assert together.lengths.tolist() == [int(chunk.lengths[0]) for chunk in alone]
    assert len(together.sentences) == sum(len(chunk.sentences) for chunk in alone)


def test_every_character_of_the_corpus_is_a_token_and_any_other_the_unknown_one():
    tokenizer = train_tokenizer("character", ["Bat\nand\ttab 한글"], 1000)
    specials = special_tokens()
    kept = [tokenizer.id_to_token(i) for i in range(len(specials), tokenizer.get_vocab_size())]
    assert kept == sorted(set("Bat\nand\ttab 한글"))
    text = "tan\nBxt é글"
    ids = TextEncoder(tokenizer).encode([text]).tokens.tolist()
    assert [tokenizer.id_to_token(i) for i in ids] == [c if c in kept else "[UNK]" for c in text]


def test_a_small_vocabulary_keeps_the_most_frequent_characters():
    specials = len(special_tokens(0))
    tokenizer = train_tokenizer("character", ["aaa bb bb c d"], specials + 3, sentinels=0)
    assert [tokenizer.id_to_token(specials + i) for i in range(3)] == [" ", "a", "b"]
    with pytest.raises(UserError, match="too small"):
        train_tokenizer("character", ["a"], specials, sentinels=0)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "character"])
def test_training_twice_gives_the_same_tokenizer(kind):
    assert train_tokenizer(kind, TEXTS, 700).to_str() == train_tokenizer(kind, TEXTS, 700).to_str()


def test_a_text_longer_than_a_piece_is_encoded_as_if_in_one(encoder):
    text = (ENGLISH + KOREAN) * 1500
    whole = encoder.tokenizer.encode(text, add_special_tokens=False).ids
    assert encoder.encode([text]).tokens.tolist() == whole


def words(encoder, text):
    chunk = encoder.encode([text])
    groups = np.split(chunk.tokens, np.flatnonzero(chunk.word_starts)[1:])
    return [encoder.tokenizer.decode(group.tolist()).strip() for group in groups]


def test_words_are_those_of_people_not_of_the_tokenizer(encoder):
    assert words(encoder, SHORT[0]) == ["The", "ship", ",", "unsinkable", ":", "sailed", "."]
    assert words(encoder, SHORT[1]) == ["배는", "새벽에", "떠났고", "몰랐다", "."]
    assert words(encoder, SHORT[2]) == ["中", "文", "ok"]


def test_sentences_begin_at_tokens(encoder):
    chunk = encoder.encode([SHORT[3]])
    groups = np.split(chunk.tokens, chunk.sentences[1:])
    texts = [encoder.tokenizer.decode(group.tolist()).strip() for group in groups]
    assert texts == ["One is here.", "Two follows!", "셋은 이렇다.", "넷."]


def test_a_foreign_tokenizer_gets_the_special_tokens_it_lacks(tmp_path):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words_ = ["[UNK]", "the", "ship", "##s", "sail", "##ed", ".", "[", "]", "mask", "<", ">", "/", "s"]
    foreign = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words_)}, unk_token="[UNK]"))
    foreign.normalizer, foreign.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    foreign.enable_truncation(4)
    foreign.save(str(tmp_path / "tokenizer.json"))
    encoder = TextEncoder(adopt_tokenizer(tmp_path))
    chunk = encoder.encode(["The ships [MASK] sailed.", "ship"])
    assert [encoder.tokenizer.id_to_token(i) for i in chunk.tokens.tolist()] == (
        ["the", "ship", "##s", "[", "mask", "]", "sail", "##ed", ".", "ship"]
    )
    assert chunk.word_starts.astype(int).tolist() == [1, 1, 0, 1, 1, 1, 1, 0, 1, 1]
    assert vocabulary_of(encoder.tokenizer).size == len(words_) + len(special_tokens()) - 1


def test_a_tokenizer_that_text_could_fool_is_cut_so_that_it_cannot(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    foreign = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "a": 2}, unk_token="[UNK]"))
    foreign.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    foreign.save(str(tmp_path / "tokenizer.json"))
    adopted = adopt_tokenizer(tmp_path)
    assert adopted.encode("a [MASK] a", add_special_tokens=False).tokens == ["a", "[UNK]", "[UNK]", "a"]
    adopted.save(str(tmp_path / "tokenizer.json"))
    assert adopt_tokenizer(tmp_path).to_str() == adopted.to_str()


def test_a_tokenizer_that_text_fools_all_the_same_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, normalizers

    foreign = Tokenizer(models.WordLevel({"[UNK]": 0, "?": 1}, unk_token="[UNK]"))
    foreign.add_special_tokens(["?"])
    foreign.normalizer = normalizers.Replace("a ? b?", "?")
    foreign.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"reads the text '\?'"):
        adopt_tokenizer(tmp_path)


def test_special_tokens_of_another_name_play_their_roles(tmp_path):
    from tokenizers import Tokenizer, models

    foreign = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "<mask>": 2}, unk_token="<unk>"))
    foreign.add_special_tokens(["<s>", "</s>", "<pad>", "<unk>"])
    foreign.save(str(tmp_path / "tokenizer.json"))
    adopted = adopt_tokenizer(tmp_path)
    found = vocabulary_of(adopted)
    names = {role: adopted.id_to_token(getattr(found, role)) for role in ("pad", "unk", "cls", "sep", "bos", "eos")}
    assert names == {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>"}
    assert adopted.id_to_token(found.mask) == "[MASK]", "an ordinary token of that name is text"


def test_a_vocabulary_that_cannot_hold_the_bytes_is_refused():
    with pytest.raises(UserError, match="too small"):
        train_tokenizer("bpe", TEXTS, 200)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model": 1}', json.dumps({"a": []}).encode()])
def test_a_file_that_is_no_tokenizer_is_a_user_error(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError):
        adopt_tokenizer(tmp_path)


def changed(path, **parts):
    values = json.loads(path.read_text("utf-8"))
    values.update(parts)
    path = path.with_name("changed.json")
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_tokenizers_are_the_same_if_they_give_every_text_the_same_ids(tmp_path):
    place = tmp_path / "tokenizer.json"
    tokenizer = train_tokenizer("bpe", TEXTS, 640)
    tokenizer.save(str(place))
    template = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    tokenizer.post_processor = template
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding()
    tokenizer.decoder = None
    tokenizer.save(str(tmp_path / "exported.json"))
    assert same_ids(place, tmp_path / "exported.json")
    added = json.loads(place.read_text("utf-8"))["added_tokens"]
    assert same_ids(place, changed(place, added_tokens=[token | {"rstrip": True} for token in added]))
    assert not same_ids(place, changed(place, normalizer={"type": "Lowercase"}))
    assert not same_ids(place, changed(place, pre_tokenizer={"type": "Whitespace"}))
    assert not same_ids(place, changed(place, added_tokens=[*added, added[-1] | {"id": 700, "content": "[NEW]"}]))
    train_tokenizer("bpe", TEXTS, 380).save(str(tmp_path / "smaller.json"))
    assert not same_ids(place, tmp_path / "smaller.json")


def test_a_vocabulary_with_room_for_them_has_sentinels_for_rows_that_are_half_hidden(tmp_path):
    sizes = {size: len(vocabulary_of(train_tokenizer("character", TEXTS, size)).sentinels) for size in (4096, 8192)}
    assert sizes == {4096: 100, 8192: 256}
    assert len(vocabulary_of(train_tokenizer("character", TEXTS, 8192, sentinels=7)).sentinels) == 7
    prepared = PrepareConfig().vocab_size
    vocabulary = vocabulary_of(train_tokenizer("bpe", TEXTS, prepared))
    build("denoisers", {"table": "ul2"}).variants(vocabulary, 512)  # raises where there are too few
