"""Beam search: the most likely texts that a search of bounded width finds.

Its rules are those of Hugging Face's generate, token for token: a text that ends is set aside with its score over
(its length, the ending token included) to the power of the length penalty, as long as it is among the `beams` best
candidates of its step; the search of a row ends when no running text can do better than the worst one set aside.

Axis letters: B prompts, W beams, C candidates of a step, L most new tokens, V vocab_size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from pretextlm.model.constraints import Constraints
from pretextlm.model.incremental_decoding import Incremental

LOW = -1.0e9
Ends = Callable[[Sequence[int], int], bool]
"""(new ids, number of the prompt in the batch) → whether this text ends with its last token, by what it says."""
EarlyStopping = bool | Literal["never"]


class _Finished:
    """The best texts of each prompt that have ended."""

    def __init__(self, prompts: int, beams: int, longest: int, device: torch.device) -> None:
        self.scores_BW = torch.full((prompts, beams), LOW, device=device)
        self.there_BW = torch.zeros(prompts, beams, dtype=torch.bool, device=device)
        self.lengths_BW = torch.zeros(prompts, beams, dtype=torch.int64, device=device)
        self.texts_BWL = torch.zeros(prompts, beams, longest, dtype=torch.int64, device=device)

    def add(self, scores_BC: Tensor, there_BC: Tensor, texts_BCL: Tensor, length: int) -> None:
        """Keep the best of the old ones and the candidates."""
        scores = torch.cat([self.scores_BW, scores_BC], dim=1)
        best_BW = scores.topk(self.scores_BW.size(1), dim=1).indices
        lengths_BC = torch.full_like(scores_BC, length, dtype=torch.int64)
        self.scores_BW = scores.gather(1, best_BW)
        self.there_BW = torch.cat([self.there_BW, there_BC], dim=1).gather(1, best_BW)
        self.lengths_BW = torch.cat([self.lengths_BW, lengths_BC], dim=1).gather(1, best_BW)
        self.texts_BWL = _gathered(torch.cat([self.texts_BWL, texts_BCL], dim=1), best_BW)


@torch.inference_mode()
def beam_search(
    reader: Incremental,
    logits_BV: Tensor,
    constraints: Constraints,
    beams: int,
    max_new_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: EarlyStopping = False,
    ends: Ends | None = None,
) -> list[list[list[int]]]:
    """For each prompt its `beams` best new texts, best first, each with the token that ended it.

    Args:
        reader: has read the prompts; it is used up.
        logits_BV: of the first new token.
        constraints: of the prompts.
        early_stopping: True ends a row's search as soon as `beams` texts have ended; False when no running text, were
            it to end now, could be better; "never" when none could be at any length.
        ends: further reasons for a text to end, such as stop strings.
    """
    prompts, device = logits_BV.size(0), logits_BV.device
    spread = torch.arange(prompts, device=device).repeat_interleave(beams)
    first_row = torch.arange(prompts, device=device)[:, None] * beams
    reader.keep(spread)
    constraints.keep(spread)
    logits_NV = logits_BV[spread]
    candidates = max(2, 1 + len(constraints.stops)) * beams
    texts_BWL = torch.zeros(prompts, beams, max_new_tokens, dtype=torch.int64, device=device)
    scores_BW = torch.zeros(prompts, beams, device=device)
    scores_BW[:, 1:] = LOW  # all beams are alike at first: only one of them is gone on from
    finished = _Finished(prompts, beams, max_new_tokens, device)
    hopeful_B1 = torch.ones(prompts, 1, dtype=torch.bool, device=device)
    for step in range(max_new_tokens):
        grown_NV = constraints.apply(logits_NV.float().log_softmax(dim=-1), step)
        grown_BM = (grown_NV.view(prompts, beams, -1) + scores_BW[:, :, None]).flatten(1)
        top_BC, places_BC = grown_BM.topk(min(candidates, grown_BM.size(1)), dim=1)
        parents_BC, tokens_BC = places_BC // logits_NV.size(1), places_BC % logits_NV.size(1)
        texts_BCL = _gathered(texts_BWL, parents_BC)
        texts_BCL[:, :, step] = tokens_BC
        done_BC = torch.isin(tokens_BC, constraints.stops)
        if step + 1 == max_new_tokens:
            done_BC = torch.ones_like(done_BC)
        elif ends is not None:
            said = [[ends(text, row) for text in rows] for row, rows in enumerate(texts_BCL[:, :, : step + 1].tolist())]
            done_BC = done_BC | torch.tensor(said, device=device)
        running_BC = top_BC + done_BC * LOW
        chosen_BW = running_BC.topk(beams, dim=1).indices
        scores_BW, texts_BWL = running_BC.gather(1, chosen_BW), _gathered(texts_BCL, chosen_BW)
        ended_BC = done_BC.clone()
        ended_BC[:, beams:] = False  # further candidates are there to be gone on with, should all others end
        full_B1 = finished.there_BW.all(dim=1, keepdim=True) & (early_stopping is True)
        closed_BC = top_BC / (step + 1) ** length_penalty
        closed_BC = closed_BC + full_B1 * LOW + ~hopeful_B1 * LOW + ~ended_BC * LOW
        finished.add(closed_BC, ended_BC, texts_BCL, step + 1)
        length = max_new_tokens if early_stopping == "never" and length_penalty > 0 else step + 1
        worst_BW = torch.where(finished.there_BW, finished.scores_BW.amin(dim=1, keepdim=True), LOW)
        could_be_better = (scores_BW[:, :1] / length**length_penalty > worst_BW).any(dim=1, keepdim=True)
        hopeful_B1 = hopeful_B1 & could_be_better
        over = early_stopping is True and bool(finished.there_BW.all())
        if over or step + 1 == max_new_tokens or not hopeful_B1.any() or done_BC.all():
            break
        rows_N = (first_row + parents_BC.gather(1, chosen_BW)).flatten()
        tokens_N = texts_BWL[:, :, step].flatten()
        reader.keep(rows_N, same_sources=True)
        constraints.keep(rows_N)
        constraints.wrote(tokens_N)
        logits_NV = reader.model.logits(reader.extend_padded(tokens_N[:, None])[:, -1])
    texts, lengths = finished.texts_BWL.tolist(), finished.lengths_BW.tolist()
    return [
        [text[:length] for text, length in zip(row, ends_at, strict=True)]
        for row, ends_at in zip(texts, lengths, strict=True)
    ]


def _gathered(texts_BWL: Tensor, index_BC: Tensor) -> Tensor:
    return texts_BWL.gather(1, index_BC[:, :, None].expand(-1, -1, texts_BWL.size(2)))
