"""Beam search: the most likely texts that a search of bounded width finds.

Its rules are those of Hugging Face's generate, token for token. In each step every running beam is extended by every
token, and the best candidates (twice as many as beams, or more) are looked at. A candidate that ends is finished with
the score

    log-probability / (length, the ending token included) ^ length_penalty

if it is among the `beams` best candidates of its step; the best of those that do not end run on. The search of a prompt
ends when no running beam can do better than the worst finished text.

Axis letters: B prompts, W beams, C candidates of a step, L most new tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pretextlm.model.constraints import Constraints
from pretextlm.model.incremental_decoding import IncrementalDecoder

LOW = -1.0e9
"""Added to the score of a candidate that must not be chosen; not -inf, which would make 0 · -inf NaN."""
IsFinished = Callable[[Sequence[int], int], bool]
"""(new ids, number of the prompt in the batch) → whether this text ends with its last token."""
EarlyStopping = bool | Literal["never"]


class _Finished:
    """The best finished texts of each prompt: scores (B, W), lengths and ids, empty places with a score of LOW."""

    def __init__(self, prompts: int, beams: int, longest: int, device: torch.device) -> None:
        self.scores_BW = torch.full((prompts, beams), LOW, device=device)
        self.there_BW = torch.zeros(prompts, beams, dtype=torch.bool, device=device)
        self.lengths_BW = torch.zeros(prompts, beams, dtype=torch.int64, device=device)
        self.texts_BWL = torch.zeros(prompts, beams, longest, dtype=torch.int64, device=device)

    def add(self, scores_BC: Tensor, there_BC: Tensor, texts_BCL: Tensor, length: int) -> None:
        """Keep the best of the texts so far and the candidates."""
        scores = torch.cat([self.scores_BW, scores_BC], dim=1)
        best_BW = scores.topk(self.scores_BW.size(1), dim=1).indices
        lengths_BC = torch.full_like(scores_BC, length, dtype=torch.int64)
        self.scores_BW = scores.gather(1, best_BW)
        self.there_BW = torch.cat([self.there_BW, there_BC], dim=1).gather(1, best_BW)
        self.lengths_BW = torch.cat([self.lengths_BW, lengths_BC], dim=1).gather(1, best_BW)
        self.texts_BWL = _gathered(torch.cat([self.texts_BWL, texts_BCL], dim=1), best_BW)


@torch.inference_mode()
def beam_search(
    reader: IncrementalDecoder,
    logits_BV: Tensor,
    constraints: Constraints,
    beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    is_finished: IsFinished | None = None,
) -> list[list[list[int]]]:
    """Search for the most likely texts of each prompt.

    Args:
        reader: Has read the prompts; it is used up.
        logits_BV: Logits of the first new token.
        constraints: Constraints of the prompts.
        beams: W.
        max_new_tokens: Most tokens of a text.
        length_penalty: Power of the length by which a text's log-probability is divided.
        early_stopping: True ends a prompt's search as soon as `beams` texts have ended; False when no running beam,
            were it to end now, could be better; "never" when none could be at any length.
        is_finished: Further reasons for a text to end, such as stop strings.

    Returns:
        For each prompt its `beams` best texts, best first, each with the token that ended it.
    """
    prompts, device = logits_BV.size(0), logits_BV.device
    spread = torch.arange(prompts, device=device).repeat_interleave(beams)
    first_row = torch.arange(prompts, device=device)[:, None] * beams
    reader.select_rows(spread)
    constraints.select_rows(spread)
    logits_NV = logits_BV[spread]
    num_candidates = max(2, 1 + len(constraints.stops)) * beams
    texts_BWL = torch.zeros(prompts, beams, max_new_tokens, dtype=torch.int64, device=device)
    scores_BW = torch.zeros(prompts, beams, device=device)
    scores_BW[:, 1:] = LOW  # all beams are equal at first: only one of them is extended
    finished = _Finished(prompts, beams, max_new_tokens, device)
    open_B1 = torch.ones(prompts, 1, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        grown_NV = constraints.apply(logits_NV.float().log_softmax(dim=-1), step)
        grown_BM = (grown_NV.view(prompts, beams, -1) + scores_BW[:, :, None]).flatten(1)
        # A flat index over (beam, token): beam = index // V, token = index % V.
        top_BC, index_BC = grown_BM.topk(min(num_candidates, grown_BM.size(1)), dim=1)
        parents_BC, tokens_BC = index_BC // logits_NV.size(1), index_BC % logits_NV.size(1)
        texts_BCL = _gathered(texts_BWL, parents_BC)
        texts_BCL[:, :, step] = tokens_BC
        done_BC = torch.isin(tokens_BC, constraints.stops)
        if step + 1 == max_new_tokens:
            done_BC = torch.ones_like(done_BC)
        elif is_finished is not None:
            texts = texts_BCL[:, :, : step + 1].tolist()
            stopped = [[is_finished(text, row) for text in candidates] for row, candidates in enumerate(texts)]
            done_BC = done_BC | torch.tensor(stopped, device=device)
        running_BC = top_BC + done_BC * LOW
        chosen_BW = running_BC.topk(beams, dim=1).indices
        scores_BW, texts_BWL = running_BC.gather(1, chosen_BW), _gathered(texts_BCL, chosen_BW)
        ended_BC = done_BC.clone()
        ended_BC[:, beams:] = False  # further candidates only run on, should all others end
        full_B1 = finished.there_BW.all(dim=1, keepdim=True) & (early_stopping is True)
        closed_BC = top_BC / (step + 1) ** length_penalty
        closed_BC = closed_BC + full_B1 * LOW + ~open_B1 * LOW + ~ended_BC * LOW
        finished.add(closed_BC, ended_BC, texts_BCL, step + 1)
        length = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step + 1
        worst_BW = torch.where(finished.there_BW, finished.scores_BW.amin(dim=1, keepdim=True), LOW)
        could_be_better = (scores_BW[:, :1] / length**length_penalty > worst_BW).any(dim=1, keepdim=True)
        open_B1 = open_B1 & could_be_better
        over = early_stopping is True and bool(finished.there_BW.all())
        if over or step + 1 == max_new_tokens or not open_B1.any() or done_BC.all():
            break
        rows_N = (first_row + parents_BC.gather(1, chosen_BW)).flatten()
        tokens_N = texts_BWL[:, :, step].flatten()
        reader.select_rows(rows_N, same_sources=True)
        constraints.select_rows(rows_N)
        constraints.update(tokens_N)
        logits_NV = reader.model.logits(reader.extend_padded(tokens_N[:, None])[:, -1])
    texts, lengths = finished.texts_BWL.tolist(), finished.lengths_BW.tolist()
    return [
        [text[:length] for text, length in zip(row, ends_at, strict=True)]
        for row, ends_at in zip(texts, lengths, strict=True)
    ]


def _gathered(texts_BWL: Tensor, index_BC: Tensor) -> Tensor:
    return texts_BWL.gather(1, index_BC[:, :, None].expand(-1, -1, texts_BWL.size(2)))
