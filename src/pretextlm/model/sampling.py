"""How the next token is chosen from its scores.

Every draw is a function of (seed, row, sample, step) alone, so a row's text does not depend on the rows beside it.
Axis letters: B rows, V vocab_size.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pretextlm.config import Config
from pretextlm.counter_rng import CounterRNG


class Sampling(Config):
    """How one token is drawn.

    Attributes:
        temperature: scores are divided by it; 0 always takes the most likely token.
        top_k: only the k most likely tokens are drawn from; 0 for all.
        top_p: of those, only the most likely ones that together reach this probability (Holtzman et al. 2020,
            https://arxiv.org/abs/1904.09751); 1 for all.
        min_p: of those, only the ones at least this share as likely as the most likely one (Nguyen et al. 2024,
            https://arxiv.org/abs/2407.01082); 0 for all.
        seed: of the draws.
    """

    temperature: float = Field(1.0, ge=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int = 0


def probabilities(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """(B, V) float64 distribution that the next token is drawn from: temperature, then top-k, top-p and min-p.

    The most likely token is always in it. Of equally likely tokens at the edge of top-k or top-p, lower ids stay.
    """
    logits_BV = logits_BV.double()
    if sampling.temperature == 0:
        return torch.zeros_like(logits_BV).scatter_(1, logits_BV.argmax(dim=1, keepdim=True), 1.0)
    logits_BV = logits_BV / sampling.temperature
    if not sampling.top_k and sampling.top_p == 1:
        return _likely_enough(logits_BV.softmax(dim=1), sampling.min_p)
    ordered_BV, ids_BV = logits_BV.sort(dim=1, descending=True, stable=True)
    if sampling.top_k:
        ordered_BV, ids_BV = ordered_BV[:, : sampling.top_k], ids_BV[:, : sampling.top_k]
    kept_BV = ordered_BV.softmax(dim=1)
    before_BV = kept_BV.cumsum(dim=1) - kept_BV
    kept_BV = _likely_enough(torch.where(before_BV < sampling.top_p, kept_BV, 0.0), sampling.min_p)
    kept_BV = kept_BV / kept_BV.sum(dim=1, keepdim=True)
    return torch.zeros_like(logits_BV).scatter_(1, ids_BV, kept_BV)


def _likely_enough(shares_BV: Tensor, min_p: float) -> Tensor:
    if not min_p:
        return shares_BV
    kept_BV = torch.where(shares_BV >= min_p * shares_BV.amax(dim=1, keepdim=True), shares_BV, 0.0)
    return kept_BV / kept_BV.sum(dim=1, keepdim=True)


def likeliest(scores_BV: Tensor) -> Tensor:
    """(B,) ids of the largest scores, of equal ones the lowest."""
    if scores_BV.device.type != "cpu":
        return scores_BV.argmax(dim=1)
    return torch.from_numpy(scores_BV.detach().float().numpy().argmax(axis=1))  # 5 to 15 times as fast as torch's


def choose(
    logits_BV: Tensor, sampling: Sampling, rows: NDArray[np.int64], step: int, samples: NDArray[np.int64] | int = 0
) -> Tensor:
    """(B,) ids of the next tokens, by inversion of the cumulative distribution.

    Args:
        logits_BV: scores; -inf for a token that must not come.
        rows: (B,) number of each row's prompt among all prompts, which its draws are keyed by.
        step: how many tokens the row has had before.
        samples: (B,) which text of its prompt each row is.
    """
    if sampling.temperature == 0:
        return likeliest(logits_BV)
    cumulative_BV = probabilities(logits_BV, sampling).cumsum(dim=1)
    draw = torch.from_numpy(CounterRNG.of(sampling.seed, samples, rows).uniform(step, 1)).to(logits_BV.device)
    return torch.searchsorted(cumulative_BV, draw * cumulative_BV[:, -1:], right=True).squeeze(1)
