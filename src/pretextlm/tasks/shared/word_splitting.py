"""The words of a plain text, for a model that tags words.

    At AT&T's Paris office, 3.5 km from 서울역.    →    At  AT&T  's  Paris  office  ,  3.5  km  from  서울역  .

The rules are those of the CoNLL-2003 and Penn Treebank data: punctuation is a word of its own, as is an English clitic
with an apostrophe ('s, 're); hyphenated words, abbreviations with dots (U.S.), numbers, addresses, @names and #tags
stay in one piece. Each ideograph is a word, as in BERT. A Korean particle is part of its eojeol: only a model that tags
characters, as those trained on KLUE, separates 서울 from 에서.
"""

from __future__ import annotations

from functools import cache

from tokenizers import Regex
from tokenizers.pre_tokenizers import PreTokenizer, Split

Span = tuple[int, int]
"""Characters [begin, end)."""

_HAN = r"[\p{Han}&&\p{L}]"
_LETTER = r"[\p{L}\p{M}\p{N}_&&[^\p{Han}]]"
_PIECES = (
    r"https?://[^\s]*[\p{L}\p{N}/]",
    r"[\p{L}\p{N}._+-]+@[\p{L}\p{N}-]+(?:\.[\p{L}\p{N}-]+)+",
    rf"[@#]{_LETTER}+",
    r"(?:\p{L}\.){2,}",  # U.S.
    _HAN,
    # Letters and digits, joined by - & ' (but not before a clitic) or, between two digits, by . , : /
    rf"{_LETTER}+(?:(?:[-&]|['’](?!(?:s|re|ve|ll|d|m)\b)|(?<=\p{{N}})[.,:/](?=\p{{N}})){_LETTER}+)*",
    r"['’](?:s|re|ve|ll|d|m)\b",
    r"(\S)\1*",  # a punctuation mark, or several of the same: ...
)


@cache
def _splitter() -> PreTokenizer:
    return Split(Regex("|".join(_PIECES)), "removed", invert=True)


def word_spans(text: str) -> list[Span]:
    """Returns the characters of each word of a text."""
    return [span for _, span in _splitter().pre_tokenize_str(text)]
