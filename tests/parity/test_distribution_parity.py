"""What the next token is drawn from is what transformers' logits processors leave, to 1e-6."""

from __future__ import annotations

import itertools

import pytest
import torch

from pretextlm.model.constraints import Constraints
from pretextlm.model.sampling import SamplingConfig, probabilities

pytest.importorskip("transformers", reason="parity is against transformers (extra hub)")

from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

ROWS, VOCAB = 50, 300


def drawn(seed: int = 0, spread: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(texts so far, scores)."""
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(VOCAB, (ROWS, 20), generator=generator)
    return texts, spread * torch.randn(ROWS, VOCAB, generator=generator)


def warpers(temperature: float, top_k: int, top_p: float, min_p: float) -> LogitsProcessorList:
    """As generate puts them together."""
    found = LogitsProcessorList()
    if temperature != 1:
        found.append(TemperatureLogitsWarper(temperature))
    if top_k:
        found.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        found.append(TopPLogitsWarper(top_p))
    if min_p:
        found.append(MinPLogitsWarper(min_p))
    return found


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_every_mixture_of_filters_leaves_the_same_distribution(temperature):
    texts, scores = drawn()
    for top_k, top_p, min_p in itertools.product([0, 1, 40], [1.0, 0.9, 0.3], [0.0, 0.05, 0.6]):
        sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        expected = warpers(temperature, top_k, top_p, min_p)(texts, scores.clone().double()).softmax(dim=-1)
        found = probabilities(scores, sampling)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0, msg=str(sampling))
        assert torch.equal(found > 0, expected > 0), sampling


@pytest.mark.parametrize("penalty", [0.7, 1.0, 1.3, 5.0])
@pytest.mark.parametrize("step", [0, 3, 7])
def test_repeated_early_and_forbidden_tokens_have_the_same_scores(penalty, step):
    texts, scores = drawn(1)
    stops, hidden, least, prompt = [4, 9], [0, 17, 250], 5, texts.size(1) - step
    theirs = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            MinNewTokensLengthLogitsProcessor(prompt, least, stops),
            SuppressTokensLogitsProcessor(hidden),
        ]
    )
    before = texts[:, :prompt].tolist()
    ours = Constraints(stops, hidden, least, penalty, before, VOCAB, scores.device)
    for place in range(prompt, texts.size(1)):
        ours.update(texts[:, place])
    torch.testing.assert_close(ours.apply(scores.clone(), step), theirs(texts, scores.clone()), atol=1e-6, rtol=0)


def test_rows_that_are_left_out_or_repeated_take_their_repetitions_along():
    texts, scores = drawn(2)
    ours = Constraints([], [], 0, 2.0, texts.tolist(), VOCAB, scores.device)
    rows = torch.tensor([7, 7, 0, 31])
    ours.select_rows(rows)
    expected = RepetitionPenaltyLogitsProcessor(2.0)(texts[rows], scores[rows])
    torch.testing.assert_close(ours.apply(scores[rows], 0), expected, atol=1e-6, rtol=0)
