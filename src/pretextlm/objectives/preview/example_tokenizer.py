"""A tokenizer trained on one text, to show the effect of an objective without a prepared corpus.

나는 라면을 먹었다.    →  나는 | 라면 ##을 | 먹었 ##다 | .
language models      →  lang ##uage | mode ##ls
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

import numpy as np

from pretextlm.data.sentences import sentence_starts
from pretextlm.data.special_tokens import FEW_SENTINELS, FURTHER, NAMED, sentinel
from pretextlm.data.token_splits import TokenSplits, halves_of
from pretextlm.data.vocabulary import Vocabulary

_WORDS = re.compile(r"\w+|[^\w\s]|(?<!\n)\n[ \t]*(?=\S)")
"""A run of letters, a sign, or a line's end with the next line's indentation."""
_CONTINUES = "##"
_SHORT_PIECE, _LONG_PIECE = 2, 4  # characters of a piece: a Hangul syllable says as much as two or three letters
_FIRST_HANGUL_OR_IDEOGRAPH = "\u1100"


@dataclass(frozen=True)
class Pieces:
    """Documents cut into words and pieces of words.

    Attributes:
        tokens: token of each id.
        documents: ids of each document's pieces.
        word_starts: for each, whether a word begins there.
        sentences: places of each document's pieces where sentences begin, ascending, the first among them.
        vocabulary: the special tokens, a hundred sentinels, the pieces of these documents, and their halves.
    """

    tokens: list[str]
    documents: list[list[int]]
    word_starts: list[list[bool]]
    sentences: list[list[int]]
    vocabulary: Vocabulary

    @classmethod
    def of(cls, documents: list[str]) -> Pieces:
        """Returns the documents in pieces.

        A word is a run without white space or punctuation; each sign is a word, and so is the end of a line with the
        indentation that follows it.
        """
        cut = [[_pieces(word) for word in _WORDS.findall(document)] for document in documents]
        tokens = [*NAMED, *(sentinel(i) for i in range(FEW_SENTINELS)), *FURTHER]
        special = {token: index for index, token in enumerate(tokens)}
        pieces = set(chain.from_iterable(chain.from_iterable(cut)))
        tokens += sorted(pieces)
        halves = range(len(tokens), len(tokens) + len(_halves(pieces)))  # set apart: no objective draws one by chance
        tokens += sorted(_halves(pieces))
        ids = {token: index for index, token in enumerate(tokens)}
        vocabulary = Vocabulary.resolve(special, len(tokens), frozenset(halves))
        return cls(
            tokens=tokens,
            documents=[[ids[piece] for word in words for piece in word] for words in cut],
            word_starts=[[i == 0 for word in words for i in range(len(word))] for words in cut],
            sentences=[_sentences(document, words) for document, words in zip(documents, cut, strict=True)],
            vocabulary=replace(vocabulary, make_token_splits=partial(_spelling, ids, len(special))),
        )


def _halves(pieces: set[str]) -> set[str]:
    """Returns the parts of pieces that cuts inside them may leave, as tokens, except those that are pieces already."""
    found: set[str] = set()
    for piece in pieces:
        goes_on = piece.startswith(_CONTINUES)
        text = piece.removeprefix(_CONTINUES)
        for start in range(len(text)):
            mark = _CONTINUES if goes_on or start else ""
            found.update(mark + text[start:end] for end in range(start + 1, len(text) + 1))
    return found - pieces


def _spelling(ids: dict[str, int], special: int) -> TokenSplits:
    """That of these tokens, of which the first `special` stand for no text."""
    texts = [token if index >= special else None for token, index in ids.items()]
    return TokenSplits.of(
        halves_of(texts, lambda text, goes_on: [ids[_CONTINUES * goes_on + text]], _CONTINUES, joined=True)
    )


def _sentences(document: str, words: list[list[str]]) -> list[int]:
    """Returns the indices of the pieces with which sentences begin."""
    begins = [match.start() for match in _WORDS.finditer(document)]
    first_pieces = np.cumsum([0, *map(len, words)])[:-1]
    numbers = np.searchsorted(begins, sentence_starts(document))
    found: list[int] = np.unique(first_pieces[numbers[numbers < len(begins)]]).tolist()
    return found or [0] * bool(words)


def _pieces(word: str) -> list[str]:
    size = _SHORT_PIECE if word[0] >= _FIRST_HANGUL_OR_IDEOGRAPH else _LONG_PIECE
    if word.isspace() or len(word) <= size + (
        size == _LONG_PIECE
    ):  # a five-letter word is not worth a piece of one letter
        return [word]
    cut = [word[i : i + size] for i in range(0, len(word), size)]
    return [cut[0], *(_CONTINUES + piece for piece in cut[1:])]
