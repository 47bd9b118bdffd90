"""The characters of tokens in the text as it was given, under every normaliser, pre-tokenizer and white space."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import normalizers as forms

from pretextlm.data.offset_mapping import OffsetTokenizer

SPACES = [
    " ",
    "\u00a0",
    "\u3000",
    "\u2009",
    "\u2003",
    "\u202f",
    "\t",
    "\n",
    "\r\n",
    "\u2028",
    "\u0085",
    "  ",
    "\u200b ",
]
WORDS = ["ship", "Ünï", "é", "하늘이", "밝았다", "中国", "ﬁne", "Ⅷ", "x\u0301\u0323", "naïve", "İs", "ǆ", "각", "🙂"]
NORMALIZERS = {
    "none": None,
    "NFC": forms.NFC(),
    "NFD": forms.NFD(),
    "NFKC": forms.NFKC(),
    "NFKD": forms.NFKD(),
    "Lowercase": forms.Lowercase(),
    "StripAccents": forms.Sequence([forms.NFD(), forms.StripAccents()]),
    "BERT": forms.BertNormalizer(lowercase=True),
    "BERT cased": forms.BertNormalizer(lowercase=False),
    "Replace": forms.Replace(" ", "▁"),
    "Prepend": forms.Prepend("▁"),
    "Strip": forms.Strip(),
    "Nmt": forms.Nmt(),
    "sequence": forms.Sequence([forms.Nmt(), forms.NFKC(), forms.Lowercase(), forms.Replace("  ", " ")]),
}
PRE_TOKENIZERS = {
    "characters": pre_tokenizers.Split("", "isolated"),
    "whitespace": pre_tokenizers.WhitespaceSplit(),
    "words": pre_tokenizers.Whitespace(),
    "BERT": pre_tokenizers.BertPreTokenizer(),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True)]),
    "punctuation": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]),
    "Metaspace": pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
    "before": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split("", "isolated")]
    ),
}


def made(normalizer, pre_tokenizer):
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def byte_level(normalizer, prefix):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({one: place for place, one in enumerate(alphabet)}, []))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return tokenizer


JOINING = ("Replace", "Prepend")
"""Normalisers that leave no space for pre-tokenizers to split at."""
TOKENIZERS = {
    **{
        f"{n}, {p}": made(N, P)
        for n, N in NORMALIZERS.items()
        for p, P in PRE_TOKENIZERS.items()
        if p == "characters" or n not in JOINING
    },
    **{f"{n}, bytes {b}": byte_level(N, b) for n, N in NORMALIZERS.items() for b in (True, False)},
}


def taken(tokenizer, text, begin, end):
    """What the tokens of text[begin:end] cover together."""
    encoder = OffsetTokenizer(tokenizer, vocabulary="unused")
    places = encoder.encode([text]).places
    inside = places[(places[:, 0] < end) & (places[:, 1] > begin)]
    return text[inside[:, 0].min() : inside[:, 1].max()]


@settings(max_examples=400, deadline=None)
@given(name=st.sampled_from(list(TOKENIZERS)), data=st.data())
def test_the_tokens_of_a_word_cover_the_word_and_nothing_else(name, data):
    words = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
    # BERT's normaliser removes control characters, so that two words become one.
    kept = [one for one in SPACES if not ("BERT" in name and unicodedata.category(one[0]) == "Cc" and one == "\u0085")]
    spaces = data.draw(st.lists(st.sampled_from(kept), min_size=len(words) + 1, max_size=len(words) + 1))
    form = data.draw(st.sampled_from(["NFC", "NFD"]))
    words = [unicodedata.normalize(form, word) for word in words]
    text = spaces[0]
    for word, space in zip(words, spaces[1:], strict=True):
        begin, text = len(text), text + word + space
        chosen = (begin, begin + len(word))
    assert taken(TOKENIZERS[name], text, *chosen) == words[-1]


def test_several_texts_do_not_see_each_other():
    texts = ["ab", "\u0301c", "", " ", "d "]
    found = OffsetTokenizer(made(None, pre_tokenizers.WhitespaceSplit()), vocabulary="unused").encode(texts)
    cut = [
        texts[number][begin:end]
        for number in range(len(texts))
        for begin, end in found.places[found.offsets[number] : found.offsets[number + 1]]
    ]
    assert cut == ["ab", "\u0301c", "d"]
    assert np.all(found.places[:, 0] <= found.places[:, 1])


@pytest.mark.parametrize("answer", ["``Yes,''", "``", "é``so", "''"])
def test_what_was_replaced_belongs_to_the_token_in_its_place(answer):
    albert = forms.Sequence([forms.Replace("``", '"'), forms.Replace("''", '"'), forms.NFKD(), forms.StripAccents()])
    for pre_tokenizer in (PRE_TOKENIZERS["characters"], PRE_TOKENIZERS["Metaspace"]):
        for text in (answer, f"He said {answer} twice", f"{answer} {answer}"):
            begin = text.rindex(answer)
            assert taken(made(albert, pre_tokenizer), text, begin, begin + len(answer)) == answer
    removed = made(forms.Replace("``", '"'), pre_tokenizers.Split("-", "removed"))
    assert taken(removed, "Oslo-Rome", 5, 9) == "Rome"
