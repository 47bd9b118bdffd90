"""Log-probabilities of given tokens, in batches whose size changes nothing.

Axis letters: B rows, T positions, N tokens asked for, D hidden_size, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.model.incremental_decoding import IncrementalDecoder, pad_left
from pretextlm.model.model_inputs import prepare
from pretextlm.model.transformer import Transformer

TOKENS_AT_ONCE = 8192
LOGITS_AT_ONCE = 512

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Scored:
    """What the model thought of N labels.

    Attributes:
        log_probabilities: (N,) in nats.
        right: (N,) bool: the label was the likeliest token.
    """

    log_probabilities: F64
    right: NDArray[np.bool_]


@torch.inference_mode()
def score_labels(model: Transformer, hidden_ND: Tensor, labels_N: Tensor, rows: int | None = None) -> Scored:
    """The labels' log-probabilities at the given hidden states; the logits are never held all at once.

    Args:
        rows: ids from this one on cannot come; None for the whole vocabulary.
    """
    logs, right = [], []
    for start in range(0, hidden_ND.size(0), LOGITS_AT_ONCE):
        labels = labels_N[start : start + LOGITS_AT_ONCE, None].long()
        logits = model.logits(hidden_ND[start : start + LOGITS_AT_ONCE])[:, :rows].float()
        at_label = logits.gather(1, labels)
        logs.append((at_label - logits.logsumexp(dim=1, keepdim=True)).squeeze(1))
        right.append(logits.argmax(dim=1) == labels.squeeze(1))
    if not logs:
        return Scored(np.zeros(0), np.zeros(0, bool))
    return Scored(torch.cat(logs).double().cpu().numpy(), torch.cat(right).cpu().numpy())


@torch.inference_mode()
def score_batch(model: Transformer, batch: Batch) -> Scored:
    """The labels of an objective's batch, in row order."""
    device = model.embed_tokens.weight.device
    outputs = model(prepare(batch, model.config, device, torch.float32))
    return score_labels(model, outputs.hidden_ND, outputs.labels_N)


@torch.inference_mode()
def hidden_at(
    model: Transformer, vocabulary: Vocabulary, rows: Sequence[Sequence[int]], row_of: I64, place_of: I64
) -> Tensor:
    """(N, D) hidden states at place `place_of[n]` of row `row_of[n]`, each row seen in both directions by itself."""
    device = model.embed_tokens.weight.device
    out = torch.empty(len(row_of), model.config.hidden_size, device=device)
    slot = np.empty(len(rows), np.int64)
    for part in by_length([len(row) for row in rows]):
        ids, segments, positions = pad_left([rows[row] for row in part], vocabulary.pad)
        batch = Batch(input_ids=ids, segment_ids=segments, position_ids=positions)
        hidden = model(prepare(batch, model.config, device, torch.float32)).hidden_BTD
        slot[:] = -1
        slot[part] = np.arange(len(part))
        wanted = np.flatnonzero(slot[row_of] >= 0)
        lengths = np.array([len(rows[row]) for row in part])
        at = slot[row_of[wanted]]
        columns = ids.shape[1] - lengths[at] + place_of[wanted]
        out[torch.from_numpy(wanted).to(device)] = hidden[torch.from_numpy(at), torch.from_numpy(columns)]
    return out


def by_length(lengths: Sequence[int], tokens: int | None = None) -> Iterator[I64]:
    """Row numbers in groups of like lengths, each of at most `tokens` tokens with its padding (or one row).

    Args:
        tokens: `TOKENS_AT_ONCE` if not given.
    """
    tokens = TOKENS_AT_ONCE if tokens is None else tokens
    order = np.argsort(np.asarray(lengths, np.int64), kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * lengths[order[stop]] <= tokens:
            stop += 1
        yield order[start:stop]
        start = stop


@torch.inference_mode()
def weigh_continuations(
    model: Transformer,
    vocabulary: Vocabulary,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Sequence[int]]],
    sources: Sequence[Sequence[int]] | None = None,
    closers: Sequence[int] = (),
    reread: bool = False,
    starts: Sequence[int] | None = None,
    rows: int | None = None,
) -> list[list[Scored]]:
    """What a decoder that reads a context once thinks of every token of every continuation of it.

    With closers, one value more for each continuation: that any of them follows it.

    Args:
        contexts: ids before the continuations, none empty.
        continuations: for each context, the ids of each continuation, none empty.
        sources: for each context, what is seen in both directions before it; None for nothing.
        closers: ids that would end a continuation.
        reread: each context begins with the last token of its source.
        starts: position of the first token of each context; 0 if not given.
        rows: ids from this one on cannot come; None for the whole vocabulary.
    """
    closing = list(closers[:1])
    found: list[list[Scored]] = [[] for _ in contexts]
    loads = [max(len(c), sum(map(len, many))) for c, many in zip(contexts, continuations, strict=True)]
    for part in by_length(loads):
        seen = None if sources is None else [sources[i] for i in part]
        begin = None if starts is None else [starts[i] for i in part]
        reader = IncrementalDecoder(model, seen, vocabulary.pad, reread=reread, starts=begin)
        if any(len(contexts[i]) > 1 for i in part):
            reader.extend([contexts[i][:-1] for i in part])
        counts = torch.tensor([len(continuations[i]) for i in part])
        reader.select_rows(torch.arange(len(part)).repeat_interleave(counts).to(reader.device))
        targets = [[*c, *closing] for i in part for c in continuations[i]]
        pieces = [[contexts[i][-1], *c, *closing][:-1] for i in part for c in continuations[i]]
        labels, segments, _ = pad_left(targets, vocabulary.pad)
        real = torch.from_numpy(segments >= 0).to(reader.device)
        hidden_BTD = reader.extend(pieces)
        scored = score_labels(model, hidden_BTD[real], torch.from_numpy(labels).to(reader.device)[real], rows)
        logs, ends = scored.log_probabilities, np.cumsum([len(target) for target in targets])
        if closing:
            logs[ends - 1] = _any_of(model, hidden_BTD[:, -1], list(closers), rows)
        each = map(Scored, np.split(logs, ends[:-1]), np.split(scored.right, ends[:-1]))
        for i in part:
            found[i] = [next(each) for _ in continuations[i]]
    return found


def _any_of(model: Transformer, hidden_ND: Tensor, ids: list[int], rows: int | None) -> F64:
    """(N,) log-probability that one of the ids comes next."""
    logits = model.logits(hidden_ND)[:, :rows].float()
    return (logits[:, ids].logsumexp(dim=1) - logits.logsumexp(dim=1)).double().cpu().numpy()
