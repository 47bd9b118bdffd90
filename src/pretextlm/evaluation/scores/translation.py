"""BLEU and chrF of whole test sets, as the library sacrebleu counts them (extra `scores`).

Both are scores of sums over all texts, so their standard error is the bootstrap's: the sums of texts drawn anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.errors import missing_extra
from pretextlm.evaluation.scores.paired import same_length
from pretextlm.evaluation.scores.resampling import bootstrap_error
from pretextlm.metric import Metric

Texts = Sequence[str | Sequence[str]]
"""Of each text, what was wanted, or several versions of it."""


def bleu(answers: Sequence[str], wanted: Texts, tokenize: str = "13a", resamples: int | None = None) -> Metric:
    """BLEU of a test set, from 0 to 100 (Papineni et al. 2002; Post 2018).

    Args:
        tokenize: one of sacrebleu's tokenizers: "13a" for text with spaces between words, "char", "zh", "ja-mecab" …
    """
    return _measured(_library().BLEU(tokenize=tokenize, force=True), answers, wanted, resamples)


def chrf(answers: Sequence[str], wanted: Texts, word_order: int = 0, resamples: int | None = None) -> Metric:
    """chrF of a test set, from 0 to 100 (Popović 2015): F2 of runs of one to six characters.

    Args:
        word_order: 2 is chrF++.
    """
    return _measured(_library().CHRF(word_order=word_order), answers, wanted, resamples)


def _library() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError:
        raise missing_extra("sacrebleu", "scores", "BLEU and chrF") from None
    return sacrebleu.metrics


def _measured(measure: Any, answers: Sequence[str], wanted: Texts, resamples: int | None) -> Metric:
    count = same_length(answers, wanted)
    versions = [[one] if isinstance(one, str) else list(one) for one in wanted]
    most = max(map(len, versions))
    if not most or not all(versions):
        raise ValueError("a text has nothing that is wanted")
    references = [[one[n] if n < len(one) else None for one in versions] for n in range(most)]
    sums_NS = np.array(measure._extract_corpus_statistics(list(answers), references), np.float64)

    def score(sums_RS: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([measure._compute_score_from_stats(sums.tolist()).score for sums in sums_RS])

    value = float(score(sums_NS.sum(0, keepdims=True))[0])
    error = bootstrap_error(lambda weights_RN: score(weights_RN @ sums_NS), count, resamples)
    return Metric(value, count, error, "", "higher")
