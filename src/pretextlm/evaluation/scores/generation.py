"""Scores of generated texts: exact match, and BLEU and chrF as computed by sacrebleu (extra ``scores``).

BLEU and chrF are functions of counts summed over all texts; their standard error is that of the bootstrap over texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pretextlm.errors import missing_extra
from pretextlm.evaluation.scores.bootstrap import I64, RESAMPLES, measure
from pretextlm.evaluation.scores.inputs import check_lengths
from pretextlm.metric import Metric, mean

References = Sequence[str | Sequence[str]]
"""For each text one reference, or several."""


def exact_match(predictions: Sequence[str], references: References) -> Metric:
    """Compute the share of texts that equal their reference, or one of them, apart from surrounding whitespace."""
    check_lengths(predictions, references)
    correct = [
        text.strip() in map(str.strip, _as_list(accepted))
        for text, accepted in zip(predictions, references, strict=True)
    ]
    return mean(correct, "share", "higher")


def bleu(
    predictions: Sequence[str], references: References, tokenize: str = "13a", *, resamples: int = RESAMPLES
) -> Metric:
    """Compute corpus BLEU, from 0 to 100 (Papineni et al. 2002; Post 2018).

    Args:
        predictions: Generated texts.
        references: Reference texts.
        tokenize: Tokenizer of sacrebleu: "13a" for text with spaces between words, "char", "zh", "ja-mecab" …
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: sacrebleu is not installed.
    """
    return _corpus_score(_sacrebleu().BLEU(tokenize=tokenize, force=True), predictions, references, resamples)


def chrf(
    predictions: Sequence[str], references: References, word_order: int = 0, *, resamples: int = RESAMPLES
) -> Metric:
    """Compute corpus chrF, from 0 to 100 (Popović 2015): F2 of character n-grams of one to six characters.

    Args:
        predictions: Generated texts.
        references: Reference texts.
        word_order: Longest word n-grams that count as well; 2 is chrF++.
        resamples: Number of bootstrap resamples.

    Raises:
        UserError: sacrebleu is not installed.
    """
    return _corpus_score(_sacrebleu().CHRF(word_order=word_order), predictions, references, resamples)


def _sacrebleu() -> Any:
    try:
        import sacrebleu.metrics
    except ImportError:
        raise missing_extra("sacrebleu", "scores", "BLEU and chrF") from None
    return sacrebleu.metrics


def _corpus_score(metric: Any, predictions: Sequence[str], references: References, resamples: int) -> Metric:
    """Compute a metric of sacrebleu.

    Its n-gram counts are extracted once for each text (N, S), so that a resample only sums rows of them.
    """
    count = check_lengths(predictions, references)
    accepted = [_as_list(one) for one in references]
    if not all(accepted):
        raise ValueError("a text has no reference")
    most = max(map(len, accepted))
    streams = [[one[n] if n < len(one) else None for one in accepted] for n in range(most)]
    statistics_NS = np.array(metric._extract_corpus_statistics(list(predictions), streams), np.float64)

    def score(rows: I64) -> float:
        return float(metric._compute_score_from_stats(statistics_NS[rows].sum(0).tolist()).score)

    return measure(score, count, "", resamples=resamples)


def _as_list(reference: str | Sequence[str]) -> list[str]:
    return [reference] if isinstance(reference, str) else list(reference)
