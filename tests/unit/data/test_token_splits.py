"""Halves of tokens: exact for every token and character, and never inside a character."""

from __future__ import annotations

import numpy as np
import pytest

from pretextlm.data.encode import TextEncoder
from pretextlm.data.token_splits import token_splits_of
from pretextlm.data.tokenizer import KINDS, adopt_tokenizer, train_tokenizer, vocabulary_of
from pretextlm.errors import UserError
from pretextlm.objectives.preview.example_tokenizer import Pieces

TEXTS = [
    "The ship sailed at dawn, and nobody aboard knew where it was going. They were content.\n\n" * 3,
    "배는 새벽에 떠났고 아무도 그 배가 어디로 가는지 몰랐다. 모두가 만족했다. 日本語 中文 🙂\n" * 3,
] * 4
HARD = [
    "Say [MASK] </s> <fim_prefix> ## ⁀ Ġ ▁ \t\n",
    "日本語 🙂🏳️‍🌈 é e\u0301 مرحبا हिन्दी",
    " x" * 50 + "가" * 60,
    "a",
    "",
]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return train_tokenizer(request.param, TEXTS, 900)


def halves(spelling, token, nth):
    left, right, end = spelling.parts[2 * (spelling.first[token] + nth) + np.arange(3)]
    return spelling.pool[left:right].tolist(), spelling.pool[right:end].tolist()


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=False)


def every_cut(spelling):
    return [(token, nth) for token in range(len(spelling.first)) for nth in range(spelling.characters[token])]


def test_both_halves_of_every_token_at_every_character_are_the_token(tokenizer):
    spelling, vocabulary = vocabulary_of(tokenizer).token_splits, vocabulary_of(tokenizer)
    inside = 0
    for token, nth in every_cut(spelling):
        left, right = halves(spelling, token, nth)
        text = decode(tokenizer, [token])
        assert right
        assert decode(tokenizer, left + right) == text
        assert not vocabulary.is_special[left + right].any()
        assert spelling.characters[left].sum() == nth
        assert spelling.characters[right].sum() == spelling.characters[token] - nth
        if "\ufffd" not in text:
            assert (decode(tokenizer, left), decode(tokenizer, right)) == (text[:nth], text[nth:])
        inside += bool(left)
    assert inside > 10 or spelling.characters.max() == 1


def test_a_half_that_is_a_token_is_spelled_by_it(tokenizer):
    spelling = vocabulary_of(tokenizer).token_splits
    for token, nth in every_cut(spelling):
        written = tokenizer.id_to_token(token)
        left, right = halves(spelling, token, nth)
        if left and not written.startswith("⁀"):
            for half in (left, right):
                text = "".join(tokenizer.id_to_token(i).removeprefix("⁀") for i in half)
                known = tokenizer.token_to_id(text)
                assert known is None or half == [known]


def test_the_characters_of_a_text_are_counted_once_whatever_its_tokens(tokenizer):
    spelling = vocabulary_of(tokenizer).token_splits
    for text in [*TEXTS[:2], *HARD]:
        ids = TextEncoder(tokenizer).encode([text]).tokens
        assert spelling.characters[ids].sum() == len(text)


def test_special_tokens_stand_for_no_text_and_the_unknown_one_for_a_character(tokenizer):
    vocabulary = vocabulary_of(tokenizer)
    special = np.flatnonzero(vocabulary.is_special)
    assert not vocabulary.token_splits.characters[special].any()
    assert vocabulary.token_splits.characters[vocabulary.unk] == 1


def test_cutting_many_tokens_equals_cutting_one_after_another(tokenizer):
    spelling = vocabulary_of(tokenizer).token_splits
    ids = TextEncoder(tokenizer).encode(["".join(TEXTS[:2])]).tokens.astype(np.int32)
    rng = np.random.default_rng(0)
    able = np.flatnonzero(spelling.characters[ids])
    places = np.sort(rng.choice(able, 40, replace=False))
    nth = rng.integers(0, spelling.characters[ids[places]])
    before = ids.copy()
    cut = spelling.cut(ids, places, nth)
    assert (ids == before).all()
    expected, between, begins = [], [], []
    wanted = dict(zip(places.tolist(), nth.tolist(), strict=True))
    for place, token in enumerate(ids.tolist()):
        begins.append(len(expected))
        left, right = halves(spelling, token, wanted[place]) if place in wanted else ([token], [])
        if place in wanted:
            between.append(len(expected) + len(left))
        expected += left + right
    assert cut.tokens.tolist() == expected
    assert cut.tokens.dtype == np.int32
    assert cut.between.tolist() == between
    assert cut.moved(np.arange(len(ids) + 1)).tolist() == [*begins, len(expected)]
    assert decode(tokenizer, cut.tokens.tolist()) == decode(tokenizer, ids.tolist())


def test_nothing_to_cut_changes_nothing(tokenizer):
    spelling, none = vocabulary_of(tokenizer).token_splits, np.zeros(0, np.int64)
    ids = np.arange(300, 320, dtype=np.int32)
    cut = spelling.cut(ids, none, none)
    assert cut.tokens.tolist() == ids.tolist()
    assert cut.moved(np.arange(21)).tolist() == list(range(21))


def test_a_foreign_word_piece_tokenizer_marks_right_halves_and_moves_cuts_it_cannot_spell(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["[UNK]", "ships", "sh", "##i", "##ps", "##p", "##s", "dawn", "d", "##aw", "##wn"]
    foreign = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    foreign.pre_tokenizer, foreign.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    foreign.save(str(tmp_path / "tokenizer.json"))
    spelling = vocabulary_of(adopt_tokenizer(tmp_path)).token_splits
    names = dict(enumerate(words))

    def named(word, nth):
        return tuple([names[i] for i in half] for half in halves(spelling, words.index(word), nth))

    assert spelling.characters[:11].tolist() == [1, 5, 2, 1, 2, 1, 1, 4, 1, 2, 2]
    assert named("ships", 2) == (["sh"], ["##i", "##ps"])
    assert named("ships", 3) == (["sh", "##i"], ["##ps"])
    assert named("##ps", 1) == (["##p"], ["##s"])
    assert named("ships", 1) == ([], ["ships"])  # there is no "s" to begin with
    assert named("dawn", 1) == ([], ["dawn"])  # nor "##awn", nor "##n" after "##aw"
    assert named("dawn", 0) == ([], ["dawn"])


def test_single_bytes_of_a_foreign_tokenizer_begin_a_character_or_go_on_in_one(tmp_path):
    from tokenizers import Tokenizer, decoders, models

    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "▁ship": 257, "▁sh": 258, "ip": 259}
    foreign = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    foreign.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    foreign.save(str(tmp_path / "tokenizer.json"))
    from pretextlm.data.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tmp_path / "tokenizer.json")
    spelling = token_splits_of(tokenizer)
    assert spelling.characters[1 + 0x41] == spelling.characters[1 + 0xEA] == 1
    assert spelling.characters[1 + 0x80] == spelling.characters[1 + 0xBF] == 0
    assert halves(spelling, 257, 3) == ([258], [259])
    assert all(not left for left, _ in (halves(spelling, 257, nth) for nth in (0, 1, 2, 4)))


def test_the_tokenizer_of_a_shown_text_spells_its_halves_and_never_draws_them():
    pieces = Pieces.of(["나는 라면을 먹었다. language!"])
    spelling, vocabulary = pieces.vocabulary.token_splits, pieces.vocabulary
    for token in pieces.documents[0]:
        text = pieces.tokens[token].removeprefix("##")
        assert spelling.characters[token] == len(text)
        for nth in range(len(text)):
            left, right = halves(spelling, token, nth)
            found = [pieces.tokens[i].removeprefix("##") for i in left + right]
            assert "".join(found) == text
            assert len(found) == 1 + (nth > 0)
            assert not nth or pieces.tokens[right[0]].startswith("##")
    assert set(vocabulary.ordinary.tolist()) == set(pieces.documents[0])


def test_a_vocabulary_that_knows_no_text_says_so():
    from tests.unit.objectives.hand_rows import vocabulary

    with pytest.raises(UserError, match="how its tokens are spelled"):
        _ = vocabulary().token_splits
