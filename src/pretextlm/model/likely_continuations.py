"""The most likely short continuations of every length, by beam search: candidates for a blank.

Axis letters: B contexts, W beams of a context, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pretextlm.model.incremental_decoding import IncrementalDecoder

LOG_ZERO = float("-inf")


@dataclass(frozen=True)
class Hypothesis:
    """A continuation.

    Attributes:
        tokens: Its ids.
        log_probability: Log-probability of these tokens after the context, in nats.
        closing: Log-probability that one of the closing tokens follows them, in nats.
    """

    tokens: tuple[int, ...]
    log_probability: float
    closing: float

    @property
    def total(self) -> float:
        """Log-probability of the tokens and of the end."""
        return self.log_probability + self.closing


@torch.inference_mode()
def likely_continuations(
    reader: IncrementalDecoder,
    contexts: Sequence[Sequence[int]],
    closers: Sequence[Sequence[int]],
    banned_V: Tensor,
    banned_first_BV: Tensor,
    width: int,
    max_tokens: int,
) -> list[list[Hypothesis]]:
    """Search for the most likely continuations of each context.

    A continuation that could end is also extended: the caller decides which length is right.

    Args:
        reader: Has read nothing yet; it is used up.
        contexts: Ids before the continuation, none empty.
        closers: For each context, at least one id that would end its continuation.
        banned_V: True for ids that no continuation contains.
        banned_first_BV: True for ids that none of the context's continuations begins with.
        width: W.
        max_tokens: Length of the longest continuations.

    Returns:
        For each context, the `width` likeliest continuations of each length 1 … max_tokens, best total first.
    """
    count, device = len(contexts), reader.device
    scores_BV = _log_softmax(reader, reader.extend(contexts)[:, -1])
    scores_BV = scores_BV.masked_fill(banned_V | banned_first_BV, LOG_ZERO)
    width = min(width, scores_BV.size(1))
    totals_BW, tokens_BW = scores_BV.topk(width, dim=1)
    texts = tokens_BW[:, :, None]
    reader.select_rows(torch.arange(count, device=device).repeat_interleave(width))
    closing_BV = _closing_table(closers, scores_BV)
    found: list[list[Hypothesis]] = [[] for _ in contexts]
    for step in range(max_tokens):
        scores_BWV = _log_softmax(reader, reader.extend_padded(tokens_BW.reshape(-1, 1))[:, -1]).view(count, width, -1)
        closing_BW = scores_BWV.masked_fill(~closing_BV[:, None], LOG_ZERO).logsumexp(dim=2)
        _record(found, texts, totals_BW, closing_BW)
        if step + 1 == max_tokens:
            break
        grown = totals_BW[:, :, None] + scores_BWV.masked_fill(banned_V, LOG_ZERO)
        totals_BW, index_BW = grown.flatten(1).topk(width, dim=1)
        parents_BW, tokens_BW = index_BW // grown.size(2), index_BW % grown.size(2)
        reader.select_rows((torch.arange(count, device=device)[:, None] * width + parents_BW).flatten())
        texts = torch.cat([texts.gather(1, parents_BW[:, :, None].expand_as(texts)), tokens_BW[:, :, None]], dim=2)
    return [sorted(row, key=lambda hypothesis: -hypothesis.total) for row in found]


def _log_softmax(reader: IncrementalDecoder, hidden_ND: Tensor) -> Tensor:
    return reader.model.logits(hidden_ND).float().log_softmax(dim=1)


def _closing_table(closers: Sequence[Sequence[int]], like_BV: Tensor) -> Tensor:
    table = torch.zeros_like(like_BV, dtype=torch.bool)
    rows = [row for row, ids in enumerate(closers) for _ in ids]
    table[rows, [token for ids in closers for token in ids]] = True
    return table


def _record(found: list[list[Hypothesis]], texts: Tensor, totals_BW: Tensor, closing_BW: Tensor) -> None:
    parts = (texts.tolist(), totals_BW.tolist(), closing_BW.tolist())
    for row, (tokens, totals, closings) in enumerate(zip(*parts, strict=True)):
        for ids, total, closing in zip(tokens, totals, closings, strict=True):
            if total > LOG_ZERO:
                found[row].append(Hypothesis(tuple(ids), total, closing))
