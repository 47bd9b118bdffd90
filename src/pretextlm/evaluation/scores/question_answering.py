"""Scores of answers to questions: exact match and F1 as SQuAD, KorQuAD and KLUE-MRC define them.

Each answer is scored against the reference that it matches best. A question that has no answer (an empty list of
references) is answered correctly by "". So is one whose references are empty after normalisation, and its F1 is 1 or 0:
the rules of SQuAD 2.0; in KorQuAD 1.0 every question has an answer.

* SQuAD (Rajpurkar et al. 2016, 2018): normalised to lower case without ASCII punctuation and the articles a, an, the;
  F1 of words.
* KorQuAD 1.0 (Lim et al. 2019): quotation marks and brackets become spaces, other ASCII punctuation is removed, lower
  case; F1 of characters without spaces.
* KLUE-MRC (Park et al. 2021): lower case without ASCII punctuation. Beside exact match, ROUGE-W as KLUE calls it: F1 of
  the longest common substring, spaces included. A reference of punctuation alone counts as "", also beside others.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

from pretextlm.evaluation.scores.inputs import check_lengths
from pretextlm.metric import Metric, mean

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_KOREAN = str.maketrans(dict.fromkeys("'\"《》<>〈〉()‘’", " "))

Answers = Sequence[str]
References = Sequence[Sequence[str]]


def squad_exact_match(predictions: Answers, references: References) -> Metric:
    """Compute the share of answers equal to a reference after SQuAD's normalisation."""
    return _best(predictions, references, normalize_squad, _equal)


def squad_f1(predictions: Answers, references: References) -> Metric:
    """Compute the mean F1 of words after SQuAD's normalisation."""
    return _best(predictions, references, normalize_squad, lambda one, other: _overlap(one.split(), other.split()))


def korquad_exact_match(predictions: Answers, references: References) -> Metric:
    """Compute the share of answers equal to a reference after KorQuAD's normalisation."""
    return _best(predictions, references, normalize_korquad, _equal)


def korquad_f1(predictions: Answers, references: References) -> Metric:
    """Compute the mean F1 of characters after KorQuAD's normalisation."""
    return _best(
        predictions,
        references,
        normalize_korquad,
        lambda one, other: _overlap(one.replace(" ", ""), other.replace(" ", "")),
    )


def klue_exact_match(predictions: Answers, references: References) -> Metric:
    """Compute the share of answers equal to a reference after KLUE-MRC's normalisation."""
    return _best(predictions, references, normalize_klue, _equal, keep_empty=True)


def klue_rouge_w(predictions: Answers, references: References) -> Metric:
    """Compute the mean F1 of the longest common substring after KLUE-MRC's normalisation."""
    return _best(predictions, references, normalize_klue, _common_substring, keep_empty=True)


def normalize_squad(text: str) -> str:
    """Return an answer in lower case, without ASCII punctuation, articles and repeated spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def normalize_korquad(text: str) -> str:
    """Return an answer in lower case, with brackets and quotation marks as spaces, without other punctuation."""
    return " ".join(text.translate(_KOREAN).lower().translate(_PUNCTUATION).split())


def normalize_klue(text: str) -> str:
    """Return an answer in lower case, without ASCII punctuation and repeated spaces."""
    return " ".join(text.lower().translate(_PUNCTUATION).split())


def _best(
    predictions: Answers,
    references: References,
    normalize: Callable[[str], str],
    score: Callable[[str, str], float],
    keep_empty: bool = False,
) -> Metric:
    """Compute the mean over questions of the best score against a reference.

    Args:
        predictions: Predicted answers.
        references: Accepted answers of each question.
        normalize: Applied to both sides before they are compared.
        score: Score of two normalised answers.
        keep_empty: Whether references that are empty after normalisation count beside others.
    """
    check_lengths(predictions, references)
    values = []
    for answer, accepted in zip(predictions, references, strict=True):
        if isinstance(accepted, str):
            raise ValueError("references are a list for each question")
        normalized = [*map(normalize, accepted)]
        kept = normalized if keep_empty else [*filter(None, normalized)]
        values.append(max(score(normalize(answer), one) for one in kept or [""]))
    return mean(values, "share", "higher")


def _equal(one: str, other: str) -> float:
    return float(one == other)


def _overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Return the F1 of two bags of words or characters."""
    if not one or not other:
        return float(len(one) == len(other))
    same = (Counter(one) & Counter(other)).total()
    return 2 * same / (len(one) + len(other))


def _common_substring(one: str, other: str) -> float:
    """Return the F1 of the longest common substring."""
    if not one or not other:
        return float(one == other)
    longest = SequenceMatcher(None, one, other).find_longest_match().size
    return 2 * longest / (len(one) + len(other))
