"""Log-probabilities of given tokens, in batches whose size changes nothing but rounding.

Axis letters: B rows, T positions, N predicted tokens, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.model.incremental_decoding import IncrementalDecoder, pad_left
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer
from pretextlm.scoring.blank_layout import EncoderRow

TOKENS_PER_BATCH = 8192
LOGITS_PER_BATCH = 512
"""Rows of logits that are held at once: V numbers each."""

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class TokenScores:
    """A model's predictions for N labels.

    Attributes:
        log_probabilities: (N,) of the labels, in nats.
        is_likeliest: (N,) bool: the label was the likeliest token.
    """

    log_probabilities: F64
    is_likeliest: NDArray[np.bool_]


@torch.inference_mode()
def score_labels(model: Transformer, hidden_ND: Tensor, labels_N: Tensor) -> TokenScores:
    """Returns the labels' scores at the given hidden states; only LOGITS_PER_BATCH rows of logits exist at a time."""
    logs, likeliest = [], []
    for start in range(0, hidden_ND.size(0), LOGITS_PER_BATCH):
        labels = labels_N[start : start + LOGITS_PER_BATCH, None].long()
        logits = model.logits(hidden_ND[start : start + LOGITS_PER_BATCH]).float()
        at_label = logits.gather(1, labels)
        logs.append((at_label - logits.logsumexp(dim=1, keepdim=True)).squeeze(1))
        likeliest.append(logits.argmax(dim=1) == labels.squeeze(1))
    if not logs:
        return TokenScores(np.zeros(0), np.zeros(0, bool))
    return TokenScores(torch.cat(logs).double().cpu().numpy(), torch.cat(likeliest).cpu().numpy())


@torch.inference_mode()
def score_batch(model: Transformer, batch: Batch) -> TokenScores:
    """Returns the scores of the labels of an objective's batch, in row order."""
    device = model.embed_tokens.weight.device
    outputs = model(prepare(batch, model.config, device, torch.float32))
    return score_labels(model, outputs.hidden_ND, outputs.labels_N)


@torch.inference_mode()
def hidden_states_at(
    model: Transformer, vocabulary: Vocabulary, rows: Sequence[EncoderRow], row_N: I64, column_N: I64
) -> Tensor:
    """Returns (N, D) hidden states at column `column_N[n]` of row `row_N[n]`, each row read by itself.

    Args:
        rows: all with ranks, or all without.
        row_N, column_N: row numbers and columns.
    """
    device = model.embed_tokens.weight.device
    out = torch.empty(len(row_N), model.config.hidden_size, device=device)
    row_in_batch = np.empty(len(rows), np.int64)
    for numbers in batches_by_length([len(row.tokens) for row in rows]):
        batch = _left_padded([rows[number] for number in numbers], vocabulary.pad)
        hidden_BTD = model(prepare(batch, model.config, device, torch.float32)).hidden_BTD
        row_in_batch[:] = -1
        row_in_batch[numbers] = np.arange(len(numbers))
        found = np.flatnonzero(row_in_batch[row_N] >= 0)
        lengths = np.array([len(rows[number].tokens) for number in numbers])
        at = row_in_batch[row_N[found]]
        columns = batch.input_ids.shape[1] - lengths[at] + column_N[found]  # the padding before the row moves them
        out[torch.from_numpy(found).to(device)] = hidden_BTD[torch.from_numpy(at), torch.from_numpy(columns)]
    return out


def _left_padded(rows: Sequence[EncoderRow], pad: int) -> Batch:
    ids, segments, positions = pad_left([row.tokens for row in rows], pad)
    if rows[0].rank is None:
        return Batch(input_ids=ids, segment_ids=segments, position_ids=positions)

    def padded(values: Sequence[Any]) -> I64:
        return pad_left(values, 0)[0]

    return Batch(
        input_ids=ids,
        segment_ids=segments,
        position_ids=padded([row.position_ids for row in rows]),
        attention="ranked",
        rank=padded([row.rank for row in rows]),
        reach=padded([row.reach for row in rows]),
    )


def batches_by_length(lengths: Sequence[int]) -> Iterator[I64]:
    """Yields row numbers in batches of similar length, each of at most TOKENS_PER_BATCH padded tokens (or one row)."""
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        # in ascending order the row at `stop` is the longest so far: it is the width of the batch that would hold it
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= TOKENS_PER_BATCH:
            stop += 1
        yield order[start:stop]
        start = stop


@torch.inference_mode()
def score_continuations(
    model: Transformer,
    vocabulary: Vocabulary,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    sources: Sequence[Sequence[int]] | None = None,
    terminators: Sequence[int] = (),
    reread: bool = False,
    first_positions: Sequence[int] | None = None,
) -> list[list[TokenScores]]:
    """Returns a decoder's score of every token of every continuation; each context is read once.

    With terminators, each continuation has one value more: the log-probability that any of them follows it.

    Args:
        contexts: ids before the continuations, none empty.
        continuations: for each context, the ids of each continuation, none empty.
        sources: for each context, the ids before it that are seen in both directions; None if there are none.
        terminators: ids that would end a continuation.
        reread: each context begins with the last token of its source.
        first_positions: position of the first token of each context; by default 0.
    """
    end = list(terminators[:1])  # the first one represents all in the row of targets
    found: list[list[TokenScores]] = [[] for _ in contexts]
    loads = [max(len(c), sum(map(len, many))) for c, many in zip(contexts, continuations, strict=True)]
    for numbers in batches_by_length(loads):
        decoder = IncrementalDecoder(
            model,
            None if sources is None else [sources[i] for i in numbers],
            vocabulary.pad,
            reread=reread,
            starts=None if first_positions is None else [first_positions[i] for i in numbers],
        )
        # The last token of a context is read along with its continuations, whose first token it predicts.
        if any(len(contexts[i]) > 1 for i in numbers):
            decoder.extend([contexts[i][:-1] for i in numbers])
        counts = torch.tensor([len(continuations[i]) for i in numbers])
        decoder.select_rows(torch.arange(len(numbers)).repeat_interleave(counts).to(decoder.device))
        targets = [[*c, *end] for i in numbers for c in continuations[i]]
        inputs = [[contexts[i][-1], *c, *end][:-1] for i in numbers for c in continuations[i]]
        labels, segments, _ = pad_left(targets, vocabulary.pad)
        real = torch.from_numpy(segments >= 0).to(decoder.device)
        hidden_BTD = decoder.extend(inputs)
        scored = score_labels(model, hidden_BTD[real], torch.from_numpy(labels).to(decoder.device)[real])
        logs, ends = scored.log_probabilities, np.cumsum([len(target) for target in targets])
        if end:
            logs[ends - 1] = _log_probability_of_any(model, hidden_BTD[:, -1], list(terminators))
        each = map(TokenScores, np.split(logs, ends[:-1]), np.split(scored.is_likeliest, ends[:-1]))
        for i in numbers:
            found[i] = [next(each) for _ in continuations[i]]
    return found


def _log_probability_of_any(model: Transformer, hidden_ND: Tensor, ids: list[int]) -> F64:
    """Returns (N,) log-probabilities that one of the ids comes next."""
    logits = model.logits(hidden_ND).float()
    return (logits[:, ids].logsumexp(dim=1) - logits.logsumexp(dim=1)).double().cpu().numpy()
