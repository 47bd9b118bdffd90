"""The answer to a question as a stretch of a text (Rajpurkar et al. 2016, 2018).

    {"question": "Who leads?", "context": "… led by an abbot.", "answers": {"text": ["an abbot"], "answer_start": [7]}}

    row       [CLS] who leads ? [SEP] … led by an abbot . [SEP]
    labels      -   -   -   -    -       -   - start end

A long text is read in windows that overlap, `stride` tokens from one to the next. Where a window does not hold the
answer, or there is none, both labels are at [CLS]. Answers are cut from the text by characters, so they are exact; a
training answer that does not stand where it is said to stand is refused by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.data.examples import Examples, tokens_of_texts
from pretextlm.data.offset_mapping import OffsetTokenizer, Part, TokenizedTexts, join
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import LOWEST_SCORE, Task
from pretextlm.tasks.shared.windows import Windows, windows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass

I64 = NDArray[np.int64]
CONTEXT_RUN = 3
"""Place of the context among the runs [CLS] question [SEP] context [SEP]."""


class QuestionAnswering(Task):
    """Args:
    question, context, answer, start: columns; answers and starts are lists (training takes the first), empty where
        there is no answer. A.B is the field B of the column A.
    stride: tokens from one window of a long text to the next.
    longest_question: tokens of a question that are read.
    longest_answer: tokens of an answer that is given.
    no_answer: whether a question may have no answer.
    impossible: column that says that a question has none, whatever answers stand there: true, or 1 ("" for none).
    misplaced: what becomes of records whose first answer does not stand where it is said to: "refuse" or "skip".
    """

    name: ClassVar[str] = "question_answering"
    title: ClassVar[str] = "Extractive question answering"
    paper: ClassVar[str] = "Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822"
    summary: ClassVar[str] = "Finds the span of a text that answers a question, or that there is none."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    default_metrics: ClassVar[tuple[str, ...]] = ("squad_exact_match", "squad_f1")

    label_columns: ClassVar[tuple[str, ...]] = ("answers", "starts", "impossible")
    head_kind: ClassVar[Kind | None] = "span"

    question: str = Field(default="question", description="column of the question")
    context: str = Field(default="context", description="column of the text")
    answer: str = Field(default="answers.text", description="column of the answers, a list")
    start: str = Field(default="answers.answer_start", description="column of the answers' first characters, a list")
    stride: int = Field(default=128, ge=1, description="tokens from one window of a long text to the next")
    longest_question: int = Field(default=64, ge=1, description="tokens of a question that are read")
    longest_answer: int = Field(default=30, ge=1, description="tokens of an answer that is given")
    no_answer: bool = Field(default=False, description="whether a question may have no answer")
    impossible: str = Field(default="", description="column that says that a question has no answer; empty for none")
    misplaced: Literal["refuse", "skip"] = Field(default="refuse", description="records with an answer out of place")

    def columns(self) -> dict[str, str]:
        """Question, text, answers and where they begin."""
        return {
            "question": self.question,
            "context": self.context,
            "answers": self.answer,
            "starts": self.start,
            **({"impossible": self.impossible} if self.impossible else {}),
        }

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """One a window."""
        contexts = encoder.encode(records.texts("context"))
        questions = encoder.encode(records.texts("question"))
        asked = np.minimum(questions.lengths, self.longest_question)
        room = length - 3 - asked
        if (room < 1).any():
            raise UserError(f"data.length is {length}: no room is left for a text.", "Give 384, or a shorter question.")
        cut = windows(contexts.lengths, room, min(self.stride, int(room.min())))
        begin = contexts.offsets[:-1][cut.record] + cut.begin
        vocabulary = encoder.vocabulary
        question = (questions, questions.offsets[:-1][cut.record], asked[cut.record])
        runs: list[Part] = [vocabulary.cls, question, vocabulary.sep, (contexts, begin, cut.length), vocabulary.sep]
        joined = join(runs, len(cut.record))
        before = 2 + asked[cut.record]
        inside = (joined.run == CONTEXT_RUN)[:, None]
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=cut.record,
            types=(joined.run >= CONTEXT_RUN).astype(np.int32),
            labels=self._labels(records, contexts, cut, before),
            places=np.where(inside, joined.places, -1).astype(np.int32),
        )

    def _labels(self, records: Records, contexts: TokenizedTexts, cut: Windows, before: I64) -> NDArray[np.int32]:
        """(W, 2) place in the window of the first and the last token of the answer; (0, 0) where it has none."""
        first, last = _tokens_at(contexts, self._spans(records))
        start, end = first[cut.record] - cut.begin, last[cut.record] - cut.begin
        held = (first[cut.record] >= 0) & (start >= 0) & (end < cut.length)
        return np.where(held, np.stack([start, end]) + before, 0).T.astype(np.int32)

    def filter_records(self, records: Records) -> Records:
        """Without those whose answer is misplaced, where these are to be left out."""
        if self.misplaced == "refuse":
            return records
        columns = records.texts("context"), *self._answers(records)
        kept = [i for i, one in enumerate(zip(*columns, strict=True)) if not one[1] or _stands(*one)]
        return records.take(kept)

    def _spans(self, records: Records) -> NDArray[np.int64]:
        """(E, 2) characters of each record's first answer, (-1, -1) where it has none."""
        columns = records.texts("context"), *self._answers(records)
        spans = np.full((len(records), 2), -1, np.int64)
        for index, (text, answers, starts) in enumerate(zip(*columns, strict=True)):
            if len(answers) != len(starts):
                message = f"there are {len(answers)} answers and {len(starts)} places where they begin."
                raise records.fault(index, message, "Give each answer its place.")
            if not answers and not self.no_answer:
                raise records.fault(index, "the question has no answer.", "Give task.no_answer=true.")
            if answers and not _stands(text, answers, starts):
                message = f"the answer {answers[0][:40]!r} does not stand at character {starts[0]}."
                raise records.fault(index, message, 'Mend it, or leave such records out: task.misplaced="skip".')
            if answers:
                spans[index] = starts[0], starts[0] + len(answers[0])
        return spans

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Two scores for each token: that the answer begins, and that it ends."""
        from pretextlm.tasks.shared.heads import TokenHead

        return {"task": TokenHead(config, 2)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Windows."""
        return {"span": len(batch.row_labels)}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Mean of the cross-entropies of start and end over the tokens of the window, in nats."""
        import torch
        from torch.nn import functional

        scores_ELS = self._scores(outputs, batch)
        labels_ES = torch.from_numpy(batch.row_labels.astype(np.int64)).to(scores_ELS.device, non_blocking=True)
        total = 0.5 * functional.cross_entropy(scores_ELS, labels_ES, reduction="sum")
        correct = (scores_ELS.argmax(1) == labels_ES).all(1).sum()
        return {"span": Term(total, len(labels_ES), correct=correct)}

    def _scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """(E, L, 2) scores of the tokens of each window, LOWEST_SCORE beyond its end."""
        import torch

        inside, example, place = tokens_of_texts(batch.segment_ids, batch.position_ids)
        longest, count = int(place.max()) + 1, int(example[-1]) + 1
        found_NS = outputs.heads["task"](outputs.hidden_at(inside))
        at = torch.from_numpy(example * longest + place).to(found_NS.device)
        empty_NS = found_NS.new_full((count * longest, 2), LOWEST_SCORE)
        out: Tensor = empty_NS.index_copy(0, at, found_NS).view(count, longest, 2)
        return out

    @classmethod
    def from_published(cls, head: TaskClass, values: Mapping[str, Any], outputs: int) -> Self | None:
        return cls() if outputs == 2 else None

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """(E, 4) of each window: score of its best stretch, its first and last token, score of no answer.

        The stretch is of at most `longest_answer` tokens and lies behind the second [SEP] (in the second part).
        """
        import torch

        scores_ELS = self._scores(outputs, batch)
        types = np.zeros(scores_ELS.shape[:2], np.bool_)
        inside, example, place = tokens_of_texts(batch.segment_ids, batch.position_ids)
        types[example, place] = batch.token_type_ids.reshape(-1)[inside] == 1
        last = types.shape[1] - 1 - types[:, ::-1].argmax(1)
        types[np.arange(len(types)), last] = False  # the [SEP] behind the text
        allowed = torch.from_numpy(types).to(scores_ELS.device)
        start, end = (scores_ELS[..., i].masked_fill(~allowed, LOWEST_SCORE) for i in (0, 1))
        best = torch.full((len(start), 3), LOWEST_SCORE, dtype=torch.float64)
        for more in range(min(self.longest_answer, start.size(1))):
            score, at = (start[:, : start.size(1) - more] + end[:, more:]).max(1)
            better = score.double().cpu() > best[:, 0]
            found = torch.stack([score.double(), at.double(), (at + more).double()], 1).cpu()
            best = torch.where(better[:, None], found, best)
        none = scores_ELS[:, 0].sum(1).double().cpu()
        out: NDArray[Any] = torch.cat([best, none[:, None]], 1).numpy()
        return out

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """The stretch of the text with the best score over all windows; "" where no answer is likelier in each."""
        assert examples.places is not None, "windows know their characters"
        order = np.lexsort((-predictions[:, 0], examples.records))
        chosen = order[np.searchsorted(examples.records[order], np.arange(len(records)))]
        none = np.full(len(records), np.inf)
        np.minimum.at(none, examples.records, predictions[:, 3])
        begin = examples.offsets[chosen]
        first = examples.places[begin + predictions[chosen, 1].astype(np.int64), 0].tolist()
        last = examples.places[begin + predictions[chosen, 2].astype(np.int64), 1].tolist()
        empty = (none > predictions[chosen, 0]).tolist() if self.no_answer else [False] * len(records)
        texts = records.texts("context")
        return ["" if gone else text[a:b] for text, a, b, gone in zip(texts, first, last, empty, strict=True)]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """The first character."""
        answers = [[text[:1]] for text in records.texts("context")]
        return {"answers": answers, "starts": [[0]] * len(records), "impossible": [False] * len(records)}

    def references(self, records: Records) -> list[Any]:
        """All right answers of each record; none where there is no answer."""
        return self._answers(records)[0]

    def _answers(self, records: Records) -> tuple[list[list[str]], list[list[int]]]:
        """Answers of each record and where they begin; none of a question that has none."""
        answers, starts = records.text_lists("answers"), records.integer_lists("starts")
        if self.impossible:
            gone = [str(value).lower() in ("1", "true") for value in records.labels("impossible")]
            answers = [[] if none else one for none, one in zip(gone, answers, strict=True)]
            starts = [[] if none else one for none, one in zip(gone, starts, strict=True)]
        return answers, starts


def _stands(text: str, answers: list[str], starts: list[int]) -> bool:
    """Whether the first answer is in the text where it is said to begin."""
    start, answer = starts[0] if starts else -1, answers[0]
    return bool(answer) and start >= 0 and text.startswith(answer, start)


def _tokens_at(texts: TokenizedTexts, spans: NDArray[np.int64]) -> tuple[I64, I64]:
    """(first, last token (E,)) that stand for any character of spans[e] = (begin, end) of text e; -1 for (-1, -1)."""
    text = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    wide = int(texts.places.max(initial=0)) + 2
    starts, ends = text * wide + texts.places[:, 0], text * wide + texts.places[:, 1]
    base = np.arange(len(spans)) * wide
    first = np.searchsorted(ends, base + spans[:, 0], side="right")
    last = np.searchsorted(starts, base + spans[:, 1], side="left") - 1
    there = (spans[:, 0] >= 0) & (last >= first)
    offset = texts.offsets[:-1]
    return np.where(there, first - offset, -1), np.where(there, last - offset, -1)
