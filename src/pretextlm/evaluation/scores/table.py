"""The scores of labelled tasks by name, and those that each benchmark is judged by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from pretextlm.errors import UserError, did_you_mean, missing_extra
from pretextlm.evaluation.scores.accuracy import accuracy
from pretextlm.evaluation.scores.answers import (
    klue_exact_match,
    klue_rouge_w,
    korquad_exact_match,
    korquad_f1,
    squad_exact_match,
    squad_f1,
)
from pretextlm.evaluation.scores.correlation import pearson, spearman
from pretextlm.evaluation.scores.exact_match import exact_match
from pretextlm.evaluation.scores.f1 import f1, f1_at_3, f1_macro, f1_micro, f1_weighted
from pretextlm.evaluation.scores.groups import group_accuracy, group_f1
from pretextlm.evaluation.scores.matthews import matthews
from pretextlm.evaluation.scores.precision_recall import auprc
from pretextlm.evaluation.scores.span_f1 import character_f1, entity_f1, span_f1, span_f1_macro
from pretextlm.evaluation.scores.squared_error import mse
from pretextlm.evaluation.scores.translation import bleu, chrf
from pretextlm.metric import Metric

Takes = Literal["labels", "groups", "chances", "numbers", "tags", "answers", "texts"]


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        measure: (answers, wanted) → value with its error. Raises ValueError for answers of another shape.
        takes: what answers are: a label each; the same, and as a third argument the group of each; a probability for
            each class; a number each; a list of tags each; an answer each, beside a list of right ones; a text each.
        description: in one line.
        library: that it needs, of the extra `scores`.
        classes: whether it is over classes, and may be told which.
    """

    measure: Callable[..., Metric]
    takes: Takes
    description: str
    library: str = ""
    classes: bool = False

    def __call__(self, answers: Any, wanted: Sequence[Any], *more: Any) -> Metric:
        return self.measure(answers, wanted, *more)


SCORES: Mapping[str, Score] = {
    "accuracy": Score(accuracy, "labels", "Share of right labels."),
    "f1": Score(f1, "labels", 'F1 of the positive class: 1, true or "1".'),
    "f1_micro": Score(
        f1_micro,
        "labels",
        "F1 of all classes together: the accuracy, unless one stands for none.",
        classes=True,
    ),
    "f1_macro": Score(f1_macro, "labels", "Mean of the F1 of each class.", classes=True),
    "f1_weighted": Score(
        f1_weighted, "labels", "Mean of the F1 of each class, weighted by how often it is wanted.", classes=True
    ),
    "group_accuracy": Score(group_accuracy, "groups", "Share of groups of records that are all right (MultiRC)."),
    "group_f1": Score(group_f1, "groups", "F1 of the positive class, its error over groups of records (MultiRC)."),
    "auprc": Score(auprc, "chances", "Mean of each class's area under precision and recall (KLUE-RE)."),
    "matthews": Score(matthews, "labels", "Matthews' correlation of labels; 0 where all answers are one class."),
    "pearson": Score(pearson, "numbers", "Pearson's correlation; 0 where all answers are the same."),
    "spearman": Score(spearman, "numbers", "Spearman's correlation of ranks; 0 where all answers are the same."),
    "mse": Score(mse, "numbers", "Mean squared error."),
    "f1_at_3": Score(f1_at_3, "numbers", 'F1 of "similar", which numbers of at least 3 stand for (KLUE-STS).'),
    "span_f1": Score(span_f1, "tags", "F1 of all spans, as conlleval counts them."),
    "span_f1_macro": Score(span_f1_macro, "tags", "Mean of the F1 of each type of span, as conlleval counts them."),
    "entity_f1": Score(entity_f1, "tags", "Mean of the F1 of each type of span, in strict IOB2 (KLUE-NER)."),
    "character_f1": Score(character_f1, "tags", "Mean of the F1 of each tag of a character, O included (KLUE-NER)."),
    "squad_exact_match": Score(
        squad_exact_match, "answers", "Share of answers equal to a right one, as SQuAD compares them."
    ),
    "squad_f1": Score(squad_f1, "answers", "Mean F1 of the words of answers, as SQuAD compares them."),
    "korquad_exact_match": Score(
        korquad_exact_match, "answers", "Share of answers equal to a right one, as KorQuAD compares them."
    ),
    "korquad_f1": Score(korquad_f1, "answers", "Mean F1 of the characters of answers, as KorQuAD compares them."),
    "klue_exact_match": Score(
        klue_exact_match, "answers", "Share of answers equal to a right one, as KLUE-MRC compares them."
    ),
    "klue_rouge_w": Score(klue_rouge_w, "answers", "Mean F1 of the longest common run of characters (KLUE-MRC)."),
    "bleu": Score(bleu, "texts", "BLEU of all texts, 0 to 100 (sacrebleu's defaults).", "sacrebleu"),
    "chrf": Score(chrf, "texts", "chrF of all texts, 0 to 100 (sacrebleu's defaults).", "sacrebleu"),
    "exact_match": Score(exact_match, "texts", "Share of texts that are just the one wanted."),
}

BENCHMARKS: Mapping[str, tuple[str, ...]] = {
    "glue/cola": ("matthews", "accuracy"),
    "glue/sst2": ("accuracy",),
    "glue/mrpc": ("f1", "accuracy"),
    "glue/qqp": ("f1", "accuracy"),
    "glue/stsb": ("pearson", "spearman"),
    "glue/mnli": ("accuracy",),
    "glue/qnli": ("accuracy",),
    "glue/rte": ("accuracy",),
    "glue/wnli": ("accuracy",),
    "glue/ax": ("matthews",),
    "super_glue/boolq": ("accuracy",),
    "super_glue/cb": ("f1_macro", "accuracy"),
    "super_glue/multirc": ("group_f1", "group_accuracy"),
    "super_glue/rte": ("accuracy",),
    "super_glue/wic": ("accuracy",),
    "super_glue/wsc": ("accuracy",),
    "klue/ynat": ("f1_macro",),
    "klue/nli": ("accuracy",),
    "klue/sts": ("pearson", "f1_at_3"),
    "klue/ner": ("entity_f1", "character_f1"),
    "klue/re": ("f1_micro", "auprc"),
    "klue/mrc": ("klue_exact_match", "klue_rouge_w"),
    "kobest/boolq": ("f1_macro", "accuracy"),
    "kobest/sentineg": ("f1_macro", "accuracy"),
    "kobest/wic": ("f1_macro", "accuracy"),
    "kornli": ("accuracy",),
    "korsts": ("spearman", "pearson"),
    "nsmc": ("accuracy",),
    "squad": ("squad_exact_match", "squad_f1"),
    "korquad": ("korquad_exact_match", "korquad_f1"),
    "conll2003": ("span_f1",),
    "wnut17": ("span_f1",),
}
"""What the tasks of benchmarks are judged by, the score that counts first."""


def score_named(name: str) -> Score:
    """A score of the table. Raises UserError for a name that is none, and where its library is missing."""
    if name not in SCORES:
        raise UserError(f"There is no score {name!r}.", did_you_mean(name, SCORES))
    score = SCORES[name]
    if score.library and find_spec(score.library) is None:
        raise missing_extra(score.library, "scores", f"The score {name!r}")
    return score
