"""Scores of labelled tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pretextlm.errors import UserError, did_you_mean, missing_extra
from pretextlm.evaluation.scores.classification import accuracy, f1, f1_at_3, f1_macro, f1_micro, f1_weighted, matthews
from pretextlm.evaluation.scores.generation import bleu, chrf, exact_match
from pretextlm.evaluation.scores.multi_label import multi_label_f1_macro, multi_label_f1_micro, subset_accuracy
from pretextlm.evaluation.scores.multirc import group_accuracy, group_f1
from pretextlm.evaluation.scores.question_answering import (
    klue_exact_match,
    klue_rouge_w,
    korquad_exact_match,
    korquad_f1,
    squad_exact_match,
    squad_f1,
)
from pretextlm.evaluation.scores.ranking import auprc
from pretextlm.evaluation.scores.regression import mse, pearson, spearman
from pretextlm.evaluation.scores.span_f1 import character_f1, entity_f1, span_f1, span_f1_macro
from pretextlm.metric import Metric

Inputs = Literal["labels", "groups", "probabilities", "label_sets", "numbers", "tags", "answers", "texts"]


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        compute: (predictions, references) → metric. Raises ValueError for inputs of another shape.
        inputs: Kind of a prediction: a label; a label, with the groups as a third argument; the probabilities of all
            classes; a list of labels; a number; a list of tags; an answer, whose references are a list; a text.
        description: One sentence.
        library: Library of the extra ``scores`` that it needs.
        classes: Whether it averages over classes, and takes those that count as a third argument.
    """

    compute: Callable[..., Metric]
    inputs: Inputs
    description: str
    library: str = ""
    classes: bool = False

    def __call__(self, predictions: Any, references: Sequence[Any], *more: Any) -> Metric:
        return self.compute(predictions, references, *more)


SCORES: Mapping[str, Score] = {
    "accuracy": Score(accuracy, "labels", "Share of correct labels."),
    "f1": Score(f1, "labels", 'F1 of the positive class (label 1, true or "1").'),
    "f1_micro": Score(f1_micro, "labels", "Micro-averaged F1 over the classes that count.", classes=True),
    "f1_macro": Score(f1_macro, "labels", "Macro-averaged F1: the unweighted mean over classes.", classes=True),
    "f1_weighted": Score(
        f1_weighted, "labels", "Weighted F1: the mean over classes, weighted by their support.", classes=True
    ),
    "group_accuracy": Score(
        group_accuracy, "groups", "Share of groups with all records correct (MultiRC exact match)."
    ),
    "group_f1": Score(group_f1, "groups", "F1 of the positive class with standard errors over groups (MultiRC F1a)."),
    "multi_label_f1_micro": Score(
        multi_label_f1_micro, "label_sets", "F1 of the labels of all examples together (multi-label)."
    ),
    "multi_label_f1_macro": Score(
        multi_label_f1_macro, "label_sets", "Unweighted mean of the F1 of each label (multi-label)."
    ),
    "subset_accuracy": Score(subset_accuracy, "label_sets", "Share of examples with all labels correct (multi-label)."),
    "auprc": Score(
        auprc, "probabilities", "Macro-averaged area under the precision-recall curve, one-vs-rest (KLUE-RE)."
    ),
    "matthews": Score(matthews, "labels", "Matthews correlation coefficient; 0 if all predictions are one class."),
    "pearson": Score(pearson, "numbers", "Pearson correlation coefficient; 0 if all predictions are equal."),
    "spearman": Score(spearman, "numbers", "Spearman rank correlation; 0 if all predictions are equal."),
    "mse": Score(mse, "numbers", "Mean squared error."),
    "f1_at_3": Score(f1_at_3, "numbers", "F1 of numbers thresholded at 3 (KLUE-STS)."),
    "span_f1": Score(span_f1, "tags", "Micro-averaged F1 of spans (conlleval, seqeval's default mode)."),
    "span_f1_macro": Score(
        span_f1_macro, "tags", "Macro-averaged F1 of spans over their types (seqeval's default mode)."
    ),
    "entity_f1": Score(entity_f1, "tags", "Macro-averaged F1 of spans over their types, strict IOB2 (KLUE-NER)."),
    "character_f1": Score(character_f1, "tags", "Macro-averaged F1 of the tags of characters, O included (KLUE-NER)."),
    "squad_exact_match": Score(squad_exact_match, "answers", "Exact match after SQuAD's normalisation."),
    "squad_f1": Score(squad_f1, "answers", "Mean F1 of words after SQuAD's normalisation."),
    "korquad_exact_match": Score(korquad_exact_match, "answers", "Exact match after KorQuAD's normalisation."),
    "korquad_f1": Score(korquad_f1, "answers", "Mean F1 of characters after KorQuAD's normalisation."),
    "klue_exact_match": Score(klue_exact_match, "answers", "Exact match after KLUE-MRC's normalisation."),
    "klue_rouge_w": Score(klue_rouge_w, "answers", "Mean F1 of the longest common substring (KLUE-MRC's ROUGE-W)."),
    "bleu": Score(bleu, "texts", "Corpus BLEU, 0 to 100 (sacrebleu's defaults).", "sacrebleu"),
    "chrf": Score(chrf, "texts", "Corpus chrF, 0 to 100 (sacrebleu's defaults).", "sacrebleu"),
    "exact_match": Score(exact_match, "texts", "Share of texts equal to a reference."),
}


def score_named(name: str) -> Score:
    """Return a score of the table.

    Raises:
        UserError: The name is unknown, or the library that the score needs is not installed.
    """
    if name not in SCORES:
        raise UserError(f"There is no score {name!r}.", did_you_mean(name, SCORES))
    score = SCORES[name]
    if score.library and find_spec(score.library) is None:
        raise missing_extra(score.library, "scores", f"The score {name!r}")
    return score
