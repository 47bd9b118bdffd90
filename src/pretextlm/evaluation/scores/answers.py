"""Answers to questions beside one or several right ones: exact match and F1 as SQuAD, KorQuAD and KLUE count them.

An answer scores as it does against the right answer that it matches best. A question without one (an empty list) is
answered by saying nothing: "". So is one whose right answers are punctuation and articles alone, and F1 is then 1 or 0:
the rules of SQuAD 2.0, which KorQuAD 1.0, where every question has an answer, has no need of.

* SQuAD (Rajpurkar et al. 2016, 2018): texts are compared in lower case, without ASCII punctuation and the articles
  a, an, the; F1 is over words.
* KorQuAD 1.0 (Lim et al. 2019): quotation marks and brackets become spaces, other ASCII punctuation goes, in lower
  case; F1 is over characters without spaces.
* KLUE-MRC (Park et al. 2021): in lower case, without ASCII punctuation. Beside exact match stands what it calls
  ROUGE-W: F1 of the longest run of characters, spaces too, that both have. A right answer of punctuation alone counts
  as nothing said, also beside others.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from pretextlm.evaluation.scores.paired import same_length
from pretextlm.metric import Metric, mean

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_KOREAN = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))


def squad_exact_match(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Share of answers equal to a right one, as SQuAD compares them."""
    return _best(answers, wanted, squad_normal, lambda one, other: float(one == other))


def squad_f1(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the words of answers, as SQuAD compares them."""
    return _best(answers, wanted, squad_normal, lambda one, other: _overlap(one.split(), other.split()))


def korquad_exact_match(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Share of answers equal to a right one, as KorQuAD compares them."""
    return _best(answers, wanted, korquad_normal, lambda one, other: float(one == other))


def korquad_f1(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the characters of answers, as KorQuAD compares them."""
    return _best(answers, wanted, korquad_normal, lambda one, other: _overlap(_letters(one), _letters(other)))


def klue_exact_match(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Share of answers equal to a right one, as KLUE-MRC compares them."""
    return _best(answers, wanted, klue_normal, lambda one, other: float(one == other), may_be_empty=True)


def klue_rouge_w(answers: Sequence[str], wanted: Sequence[Sequence[str]]) -> Metric:
    """Mean F1 of the longest common run of characters, as KLUE-MRC compares answers."""
    return _best(answers, wanted, klue_normal, _common_run, may_be_empty=True)


def squad_normal(text: str) -> str:
    """What of an answer SQuAD compares."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def korquad_normal(text: str) -> str:
    """What of an answer KorQuAD compares."""
    return " ".join(text.translate(_KOREAN).lower().translate(_PUNCTUATION).split())


def klue_normal(text: str) -> str:
    """What of an answer KLUE-MRC compares."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def _letters(text: str) -> str:
    return text.replace(" ", "")


def _best(
    answers: Sequence[str],
    wanted: Sequence[Sequence[str]],
    normal: Callable[[str], str],
    score: Callable[[str, str], float],
    may_be_empty: bool = False,
) -> Metric:
    """Mean over questions of the best score against a right answer.

    Args:
        may_be_empty: whether right answers of which nothing is left count beside others.
    """
    same_length(answers, wanted)
    values = []
    for answer, right in zip(answers, wanted, strict=True):
        if isinstance(right, str):
            raise ValueError("right answers are a list for each question")
        said, normals = normal(answer), [*map(normal, right)]
        kept = normals if may_be_empty else [*filter(None, normals)]
        values.append(max(score(said, one) for one in kept or [""]))
    return mean(values, "share", "higher")


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """F1 of two bags of words or letters."""
    if not one or not other:
        return float(len(one) == len(other))
    same = (Counter(one) & Counter(other)).total()
    return 2 * same / (len(one) + len(other))


def _common_run(one: str, other: str) -> float:
    """F1 of the longest run of characters that is in both."""
    if not one or not other:
        return float(one == other)
    longest = SequenceMatcher(None, one, other).find_longest_match().size
    return 2 * longest / (len(one) + len(other))
