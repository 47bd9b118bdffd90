"""Sentence embeddings, close for sentences of the same meaning (Reimers & Gurevych 2019; Gao et al. 2021).

    {"anchor": "A man is eating.", "positive": "Someone eats.", "negative": "A man is cooking."}

    texts         [CLS] a man is eating . [SEP]    [CLS] someone eats . [SEP]    [CLS] a man is cooking . [SEP]
    embedding     the mean of a text's last hidden states (or another pooling of them), scaled to norm 1
    loss          -log softmax of cos(anchor, positive) / temperature, among all positives and negatives of the step

The loss compares each anchor with all other texts of its step. Micro-batches would have fewer negatives and another
loss, so the task computes each step in one pass, and refuses smaller training.micro_batch_tokens and several processes.
Gradient checkpointing (training.gradient_checkpointing) saves memory instead. An anchor's own text, its positives in
any example, and texts whose positive it is are none of its negatives (`known_positives`).

It is evaluated on records with a score (`task.score`, as in STS) by the rank correlation of cosines with scores;
without a score, by how often an anchor's nearest positive is its own. The validation loss is the squared difference of
cosine and score, scores scaled to 0 … 1, or else the loss above within each batch.

Axis letters: E examples, K texts of an example, M all texts, N tokens, D hidden_size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pretextlm.batch import Batch, Term
from pretextlm.data.examples import Examples, first_places, last_places, tokens_of_texts
from pretextlm.data.offset_mapping import OffsetTokenizer, framed
from pretextlm.errors import UserError
from pretextlm.objectives.protocol import Architecture, Outputs
from pretextlm.tasks.base import DEFAULTS, Task, text_template

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.data.records import Records
    from pretextlm.model.config import ModelConfig

Pooling = Literal["mean", "cls", "max", "last"]
AT_ONCE = 1024
"""Anchors that are compared with all texts at a time, to find the nearest."""


class SentenceEmbedding(Task):
    """Contrastive sentence embeddings.

    Args:
        anchor, positive, negative: columns of the training records; "" for no hard negatives.
        pooling: how a text's last hidden states become one vector: their "mean", their largest values ("max"), or the
            state of the first ("cls") or "last" token, special tokens included.
        temperature: by which cosines are divided; the smaller, the more weight the nearest negatives have.
        first, second, score: columns of validation records that are pairs with a score; without a score, validation
            records have the columns of training records.
    """

    name: ClassVar[str] = "sentence_embedding"
    title: ClassVar[str] = "Sentence embeddings"
    paper: ClassVar[str] = "Gao et al. 2021, https://arxiv.org/abs/2104.08821"
    summary: ClassVar[str] = "Maps sentences of the same meaning to vectors that lie close together."
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder", "decoder")
    default_metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson")
    training_defaults: ClassVar[Mapping[str, Any]] = {**DEFAULTS, "batch_rows": 64}
    needs_full_batch: ClassVar[bool] = True

    label_columns: ClassVar[tuple[str, ...]] = ("text1", "text2")

    anchor: str = Field(default="anchor", description="column of a text")
    positive: str = Field(default="positive", description="column of a text that means the same")
    negative: str = Field(default="", description="column of a text that does not; empty for none")
    pooling: Pooling = Field(default="mean", description="mean, cls (first token), max or last (token)")
    temperature: float = Field(default=0.05, gt=0, description="by which cosines are divided")
    first: str = Field(default="sentence1", description="column of a text of a pair with a score")
    second: str = Field(default="sentence2", description="column of the other one")
    score: str = Field(default="", description="column of the score of validation pairs; empty for none")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Correlations where there are scores, else accuracy."""
        return self.metrics or (self.default_metrics if self.score else ("accuracy",))

    def columns(self) -> dict[str, str]:
        """Returns the columns of two texts, or three with a hard negative."""
        hard = {"text2": self.negative} if self.negative else {}
        return {"text0": self.anchor, "text1": self.positive, **hard}

    def validation_columns(self) -> dict[str, str]:
        """Returns the columns of two texts and their score, if there is one."""
        return {"text0": self.first, "text1": self.second, "score": self.score} if self.score else self.columns()

    def fit_labels(self, records: Records) -> Self:
        """Returns the task unchanged.

        Raises:
            UserError: there is only one pair, which has no negatives.
        """
        if len(records) < 2 and not self.negative:
            raise UserError(
                f"{records.source} has one pair.", "Give at least two: each one's negatives are the others."
            )
        return self

    def examples(self, records: Records, encoder: OffsetTokenizer, model: ModelConfig, length: int) -> Examples:
        """Returns one example per record, of two or three texts; long texts lose tokens at their end.

        Labels are the score, or (E, K) numbers that are equal for equal texts.
        """
        template = text_template(encoder.vocabulary, model)
        room = length - template.specials(1)
        if room < 1:
            raise UserError(f"data.length is {length}: there is no room for text.", "Give at least 8, usually 128.")
        texts = [records.texts(name) for name in records.columns if name.startswith("text")]
        # One list of all texts, record by record: text k of record e is number e · K + k.
        found = encoder.encode([text for record in zip(*texts, strict=True) for text in record])
        spans = [(found, found.offsets[:-1], np.minimum(found.lengths, room))]
        joined, types = framed(template.single, spans, encoder.vocabulary.bos)
        numbers = np.tile(np.arange(len(texts), dtype=np.int32), len(records))
        return Examples(
            tokens=joined.tokens,
            offsets=joined.offsets[:: len(texts)],
            records=np.arange(len(records)),
            types=types,
            texts=np.repeat(numbers, np.diff(joined.offsets)),
            labels=_scaled(records) if "score" in records.columns else _numbers(texts),
        )

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of examples."""
        return {_term(batch): len(batch.row_labels)}

    def embeddings(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (E, K, D) the texts' embeddings, of norm 1, in fp32."""
        from torch.nn import functional

        pooled_MD = functional.normalize(self.pooled(outputs, batch), dim=1)
        return pooled_MD.view(len(batch.row_labels), -1, pooled_MD.size(1))

    def pooled(self, outputs: Outputs, batch: Batch) -> Tensor:
        """Returns (M, D) one vector for each text, in fp32."""
        import torch

        if self.pooling in ("cls", "last"):
            return outputs.hidden_at((first_places if self.pooling == "cls" else last_places)(batch)).float()
        inside, text_N, _ = tokens_of_texts(batch.segment_ids, batch.position_ids)
        hidden_ND = outputs.hidden_at(inside).float()
        sizes_M = torch.from_numpy(np.bincount(text_N)).to(hidden_ND.device)
        index_N = torch.from_numpy(text_N).to(hidden_ND.device)
        zeros_MD = hidden_ND.new_zeros(len(sizes_M), hidden_ND.size(1))
        if self.pooling == "mean":
            return zeros_MD.index_add(0, index_N, hidden_ND) / sizes_M[:, None]
        index_ND = index_N[:, None].expand_as(hidden_ND)
        return zeros_MD.scatter_reduce(0, index_ND, hidden_ND, "amax", include_self=False)

    def terms(self, outputs: Outputs, batch: Batch) -> dict[str, Term]:
        """Returns the cross-entropy of the positives among all candidates in nats, or the squared error of scores."""
        import torch
        from torch.nn import functional

        embedded_EKD = self.embeddings(outputs, batch)
        device, count = embedded_EKD.device, len(batch.row_labels)
        anchors_ED, positives_ED = embedded_EKD[:, 0], embedded_EKD[:, 1]
        if _term(batch) == "score":
            labels_E = torch.from_numpy(batch.row_labels).to(device)
            return {"score": Term(((anchors_ED * positives_ED).sum(1) - labels_E).square().sum(), count)}
        texts_EK = batch.row_labels.astype(np.int64)
        candidates_CD = embedded_EKD[:, 1:].transpose(0, 1).flatten(0, 1)  # all positives, then all negatives
        scores_EC = anchors_ED @ candidates_CD.T / self.temperature
        own_E = torch.arange(count, device=device)
        # Columns 0 … E - 1 are the positives, so anchor e's own is column e. Other known positives are no negatives.
        anchors, columns = known_positives(texts_EK, texts_EK[:, 1:].T.reshape(-1))
        others = anchors != columns
        masked_EC = torch.zeros(scores_EC.shape, dtype=torch.bool)
        masked_EC[torch.from_numpy(anchors[others]), torch.from_numpy(columns[others])] = True
        scores_EC = scores_EC.masked_fill(masked_EC.to(device), float("-inf"))
        total = functional.cross_entropy(scores_EC, own_E, reduction="sum")
        return {"contrast": Term(total, count, correct=(scores_EC.argmax(1) == own_E).sum())}

    def predict(self, outputs: Outputs, batch: Batch) -> NDArray[Any]:
        """Returns (E, K, D) embeddings."""
        found: NDArray[Any] = self.embeddings(outputs, batch).cpu().numpy()
        return found

    def answers(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[Any]:
        """Returns the cosine of each pair, or the index of the record whose positive is nearest to each anchor."""
        anchors, positives = predictions[:, 0], predictions[:, 1]
        if "score" in records.columns:
            return [float(value) for value in (anchors * positives).sum(1)]
        assert examples.labels is not None, "texts have numbers"
        rows, columns = known_positives(examples.labels, examples.labels[:, 1])
        rows, columns = rows[rows != columns], columns[rows != columns]
        nearest = []
        for begin in range(0, len(anchors), AT_ONCE):
            scores = anchors[begin : begin + AT_ONCE] @ positives.T
            some = slice(*np.searchsorted(rows, [begin, begin + AT_ONCE]))
            scores[rows[some] - begin, columns[some]] = -np.inf
            nearest.append(scores.argmax(1))
        return [int(number) for number in np.concatenate(nearest)]

    def dummy_labels(self, records: Records) -> dict[str, list[Any]]:
        """Returns no columns: a text has an embedding by itself."""
        return {}

    def explain(
        self, predictions: NDArray[Any], examples: Examples, encoder: OffsetTokenizer, records: Records
    ) -> list[dict[str, Any]]:
        """Returns the embedding of each anchor."""
        return [{"answer": embedding[0].tolist()} for embedding in predictions]

    def references(self, records: Records) -> list[Any]:
        """Returns the scores, or the records' own indices."""
        if "score" in records.columns:
            return [float(value) for value in records.numbers("score")]
        return list(range(len(records)))


def known_positives(texts_EK: NDArray[Any], candidates_C: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Finds the candidates that are known to mean the same as an anchor: they are none of its negatives.

    These are the anchor's own text, its positives in any example, and the anchors of examples whose positive it is.

    Args:
        texts_EK: (E, K) number of each text, the same for the same text; columns are anchor, positive and others.
        candidates_C: (C,) numbers of the candidates' texts.

    Returns:
        (P,) index of the anchor, ascending, and (P,) index of the candidate of each such pair.
    """
    anchors_E, positives_E = texts_EK[:, 0], texts_EK[:, 1]
    # All (text, text of the same meaning), in both directions and of each text with itself.
    same = np.stack([anchors_E, positives_E], 1)
    pairs = np.unique(np.concatenate([same, same[:, ::-1], np.stack([anchors_E, anchors_E], 1)]), axis=0)
    # Each pair (x, y) joins every anchor of text x with every candidate of text y. With the indices sorted by text, the
    # anchors of x are a run of `order_E`, and the candidates of y one of `order_C`.
    order_E, order_C = np.argsort(anchors_E, kind="stable"), np.argsort(candidates_C, kind="stable")
    runs = []
    for sorted_texts, wanted in ((anchors_E[order_E], pairs[:, 0]), (candidates_C[order_C], pairs[:, 1])):
        begin = np.searchsorted(sorted_texts, wanted)
        runs.append((begin, np.searchsorted(sorted_texts, wanted, side="right") - begin))
    (begin_E, size_E), (begin_C, size_C) = runs
    counts = size_E * size_C
    pair = np.repeat(np.arange(len(pairs)), counts)
    nth = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    anchor = order_E[begin_E[pair] + nth // size_C[pair]]
    candidate = order_C[begin_C[pair] + nth % size_C[pair]]
    sort = np.lexsort((candidate, anchor))
    return anchor[sort], candidate[sort]


def _term(batch: Batch) -> str:
    return "score" if batch.row_labels.dtype == np.float32 else "contrast"


def _scaled(records: Records) -> NDArray[np.float32]:
    """Returns (E,) scores from 0 to 1.

    Raises:
        UserError: all scores are equal.
    """
    scores = records.numbers("score")
    least, most = float(scores.min()), float(scores.max())
    if least == most:
        raise UserError(f"All scores of {records.source} are {least:g}.", "Give records with different scores.")
    return ((scores - least) / (most - least)).astype(np.float32)


def _numbers(texts: list[list[str]]) -> NDArray[np.int32]:
    """Returns (E, K) a number for each text, the same for the same text."""
    numbers: dict[str, int] = {}
    return np.array([[numbers.setdefault(text, len(numbers)) for text in column] for column in texts], np.int32).T
