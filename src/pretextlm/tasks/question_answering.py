"""The answer to a question as a span of a text (Rajpurkar et al. 2016, 2018).

    {"question": "Who leads?", "context": "… led by an abbot.", "answers": {"text": ["an abbot"], "answer_start": [7]}}

    row       [CLS] who leads ? [SEP] … led by an abbot . [SEP]
    labels      -   -   -   -    -       -   - start end

A long text is read in overlapping windows, `stride` tokens from one to the next. Where a window does not hold the
answer, or there is none, both labels are at [CLS]. Answers are cut from the text by characters, so they are exact; a
training answer that is not at its position is an error that names the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.data.examples import Examples, tokens_of_texts
from pretextlm.data.offset_mapping import OffsetTokenizer, TokenizedTexts, framed
from pretextlm.data.text_template import SECOND
from pretextlm.data.word_boundaries import without_white_space
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import LOWEST_SCORE, Task, text_template
from pretextlm.tasks.shared.windows import Windows, windows

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig
    from pretextlm.model.families.shared.task_classes import Kind, TaskClass

I64 = NDArray[np.int64]


class QuestionAnswering(Task):
    """Extractive question answering.

    Args:
        question, context, answer, start: columns; answers and starts are lists (training uses the first), empty where
            there is no answer. A.B is the field B of the column A.
        stride: tokens from one window of a long text to the next.
        longest_question: most tokens of a question that are read.
        longest_answer: most tokens of a predicted answer.
        no_answer: whether a question may have no answer.
        impossible: column that is true or 1 for a question without an answer, whatever its answers say; "" for none.
        misplaced: "refuse" or "skip" records whose first answer is not at its position.
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
    longest_question: int = Field(default=64, ge=1, description="most tokens of a question that are read")
    longest_answer: int = Field(default=30, ge=1, description="most tokens of a predicted answer")
    no_answer: bool = Field(default=False, description="whether a question may have no answer")
    impossible: str = Field(default="", description="column that says that a question has no answer; empty for none")
    misplaced: Literal["refuse", "skip"] = Field(default="refuse", description="records with an answer out of place")

    def columns(self) -> dict[str, str]:
        """Returns the columns of the question, the text, the answers and their positions."""
        return {
            "question": self.question,
            "context": self.context,
            "answers": self.answer,
            "starts": self.start,
            **({"impossible": self.impossible} if self.impossible else {}),
        }

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per window."""
        contexts = encoder.encode(records.texts("context"))
        questions = encoder.encode(records.texts("question"))
        kept = np.minimum(questions.lengths, self.longest_question)
        pieces = text_template(encoder.vocabulary, model).pair
        context = [index for index, _ in pieces].index(SECOND)
        room = length - (len(pieces) - 2) - kept
        if (room < 1).any():
            raise UserError(f"data.length is {length}: no room is left for a text.", "Give 384, or a shorter question.")
        cut = windows(contexts.lengths, room, min(self.stride, int(room.min())))
        begin = contexts.offsets[:-1][cut.record] + cut.begin
        spans = [(questions, questions.offsets[:-1][cut.record], kept[cut.record]), (contexts, begin, cut.length)]
        joined, types = framed(pieces, spans, encoder.vocabulary.bos)
        before = context - 1 + kept[cut.record]  # one piece before the context is the question
        inside = (joined.run == context)[:, None]
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets,
            records=cut.record,
            types=types,
            labels=self._labels(records, contexts, cut, before),
            places=np.where(inside, joined.places, -1).astype(np.int32),
        )

    def _labels(self, records: Records, contexts: TokenizedTexts, cut: Windows, before: I64) -> NDArray[np.int32]:
        """Returns (W, 4) places in the window: the answer's first and last token, the text's first, the one after it.

        A window without the answer has the places (0, 0) for it.
        """
        first, last = _tokens_at(contexts, self._spans(records))
        start, end = first[cut.record] - cut.begin, last[cut.record] - cut.begin
        held = (first[cut.record] >= 0) & (start >= 0) & (end < cut.length)
        answer = np.where(held, np.stack([start, end]) + before, 0)
        return np.stack([*answer, before, before + cut.length], 1).astype(np.int32)

    def filter_records(self, records: Records) -> Records:
        """Returns the records without those whose answer is misplaced, if these are skipped."""
        if self.misplaced == "refuse":
            return records
        columns = records.texts("context"), *self._answers(records)
        kept = [i for i, one in enumerate(zip(*columns, strict=True)) if not one[1] or _is_in_place(*one)]
        return records.take(kept)

    def _spans(self, records: Records) -> NDArray[np.int64]:
        """Returns (E, 2) the characters of each record's first answer, (-1, -1) without one."""
        columns = records.texts("context"), *self._answers(records)
        spans = np.full((len(records), 2), -1, np.int64)
        for index, (text, answers, starts) in enumerate(zip(*columns, strict=True)):
            if len(answers) != len(starts):
                message = f"there are {len(answers)} answers and {len(starts)} positions of their first characters."
                raise records.fault(index, message, "Give each answer its position.")
            if not answers and not self.no_answer and not records.unlabelled:
                raise records.fault(index, "the question has no answer.", "Give task.no_answer=true.")
            if answers and not _is_in_place(text, answers, starts):
                message = f"the answer {answers[0][:40]!r} is not at character {starts[0]}."
                raise records.fault(index, message, 'Correct it, or leave such records out: task.misplaced="skip".')
            if answers:
                spans[index] = starts[0], starts[0] + len(answers[0])
        return spans

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        """Returns a head with two scores for each token: that the answer begins there, and that it ends there."""
        from pretextlm.tasks.shared.heads import TokenHead

        return {"task": TokenHead(config, 2)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of windows."""
        return {"span": len(batch.row_labels)}

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the mean of the cross-entropies of start and end over the tokens of the window, in nats."""
        import torch
        from torch.nn import functional

        scores_ELS = self._scores(outputs, batch)
        labels_ES = torch.from_numpy(batch.row_labels[:, :2].astype(np.int64)).to(scores_ELS.device, non_blocking=True)
        total = 0.5 * functional.cross_entropy(scores_ELS, labels_ES, reduction="sum")
        correct = (scores_ELS.argmax(1) == labels_ES).all(1).sum()
        return {"span": Term(total, len(labels_ES), correct=correct)}

    def _scores(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (E, L, 2) the scores of the tokens of each window, LOWEST_SCORE beyond its end."""
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
        """Returns (E, 4) of each window: the score of its best span, its first and last token, the score of no answer.

        The span has at most `longest_answer` tokens and is in the text.
        """
        import torch

        scores_ELS = self._scores(outputs, batch)
        first, after = batch.row_labels[:, 2:3], batch.row_labels[:, 3:4]
        places = np.arange(scores_ELS.size(1))
        allowed = torch.from_numpy((first <= places) & (places < after)).to(scores_ELS.device)
        start, end = (scores_ELS[..., i].masked_fill(~allowed, LOWEST_SCORE) for i in (0, 1))
        best = torch.tensor([[LOWEST_SCORE, 0, 0]], dtype=torch.float64).repeat(len(start), 1)  # a text without tokens
        # Spans of 1, 2, 3 … tokens: start[t] + end[t + more] for all t at once, by shifting the scores of the ends.
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
        """Returns the span with the best score over all windows; "" where no answer is more probable in each window."""
        return [one["answer"] for one in self.explain(predictions, examples, encoder, records)]

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns the answers with their characters in the text, from start to end; both None without an answer."""
        assert examples.places is not None, "windows know their characters"
        # Windows sorted by record, and within a record by falling score: the first of each record is its best.
        order = np.lexsort((-predictions[:, 0], examples.records))
        chosen = order[np.searchsorted(examples.records[order], np.arange(len(records)))]
        none = np.full(len(records), np.inf)
        np.minimum.at(none, examples.records, predictions[:, 3])
        begin = examples.offsets[chosen]
        first = examples.places[begin + predictions[chosen, 1].astype(np.int64), 0].tolist()
        last = examples.places[begin + predictions[chosen, 2].astype(np.int64), 1].tolist()
        nothing = predictions[chosen, 0] <= LOWEST_SCORE  # a text without a token
        empty = (nothing | (none > predictions[chosen, 0]) if self.no_answer else nothing).tolist()
        texts = records.texts("context")
        spans = [without_white_space(*one) for one in zip(texts, first, last, strict=True)]
        return [
            {"answer": "", "start": None, "end": None} if gone else {"answer": text[a:b], "start": a, "end": b}
            for text, (a, b), gone in zip(texts, spans, empty, strict=True)
        ]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns no answer to any question."""
        none: list[Any] = [[]] * len(records)
        return {"answers": none, "starts": none, "impossible": [False] * len(records)}

    def references(self, records: Records) -> list[Any]:
        """Returns all correct answers of each record; an empty list where there is none."""
        return self._answers(records)[0]

    def _answers(self, records: Records) -> tuple[list[list[str]], list[list[int]]]:
        """Returns the answers of each record and their first characters; empty lists without an answer."""
        answers, starts = records.text_lists("answers"), records.integer_lists("starts")
        if self.impossible:
            gone = [str(value).lower() in ("1", "true") for value in records.labels("impossible")]
            answers = [[] if none else one for none, one in zip(gone, answers, strict=True)]
            starts = [[] if none else one for none, one in zip(gone, starts, strict=True)]
        return answers, starts


def _is_in_place(text: str, answers: list[str], starts: list[int]) -> bool:
    """Whether the text has the first answer at its position."""
    start, answer = starts[0] if starts else -1, answers[0]
    return bool(answer) and start >= 0 and text.startswith(answer, start)


def _tokens_at(texts: TokenizedTexts, spans: NDArray[np.int64]) -> tuple[I64, I64]:
    """Returns the first and last token (E,) that overlap the characters spans[e] = (begin, end) of text e; else -1.

    One search over all texts: positions of text e are shifted by e · wide, more than any text has, so that the shifted
    starts and ends of all tokens ascend. The first token is the first whose end is after `begin`, the last token the
    last whose start is before `end`.
    """
    text = np.repeat(np.arange(len(texts.lengths)), texts.lengths)
    wide = int(texts.places.max(initial=0)) + 2
    starts, ends = text * wide + texts.places[:, 0], text * wide + texts.places[:, 1]
    base = np.arange(len(spans)) * wide
    first = np.searchsorted(ends, base + spans[:, 0], side="right")
    last = np.searchsorted(starts, base + spans[:, 1], side="left") - 1
    there = (spans[:, 0] >= 0) & (last >= first)
    offset = texts.offsets[:-1]
    return np.where(there, first - offset, -1), np.where(there, last - offset, -1)
