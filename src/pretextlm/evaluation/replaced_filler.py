"""How a model of replaced-token detection fills a blank: its generator proposes, and it judges the proposals.

    generator    [CLS] The [MASK] sat on the mat . [SEP]      proposes: cat, dog, …
    model        [CLS] The cat sat on the mat . [SEP]         is "cat" the original? log p

Choices that are given are judged as if they had been proposed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pretextlm.evaluation.cloze import Answer, Cloze, Filler, TokenTexts
from pretextlm.evaluation.masked_filler import MaskedFiller
from pretextlm.evaluation.scoring import hidden_at
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective

CANDIDATES = 8


class ReplacedTokenFiller(Filler):
    """Scores are Σ log p(token is the original | the text with the answer in it) over the answer's tokens, in nats.

    They are not log-likelihoods of the answer: the model never learns what could stand in a place, only what does not.
    """

    def __init__(self, model: Transformer, objective: Objective, texts: TokenTexts) -> None:
        super().__init__(model, objective, texts)
        generator = model.heads["generator"]
        assert isinstance(generator, Transformer), "the generator is a model"
        self.generator = MaskedFiller(generator, objective, texts)

    def answers(self, clozes: Sequence[Cloze], top: int, max_tokens: int) -> list[list[Answer]]:
        proposed = self.generator.answers(clozes, max(CANDIDATES, top), max_tokens)
        scores = self.scores(clozes, [[answer.tokens for answer in some] for some in proposed])
        judged = [
            [Answer(answer.tokens, float(score)) for answer, score in zip(some, values, strict=True)]
            for some, values in zip(proposed, scores, strict=True)
        ]
        return [sorted(some, key=lambda answer: -answer.score)[:top] for some in judged]

    @torch.inference_mode()
    def scores(self, clozes: Sequence[Cloze], choices: Sequence[Sequence[Sequence[int]]]) -> list[NDArray[np.float64]]:
        each = [(cloze, choice) for cloze, many in zip(clozes, choices, strict=True) for choice in many]
        rows = [self.generator.row(cloze, choice) for cloze, choice in each]
        row_of = np.repeat(np.arange(len(each)), [len(choice) for _, choice in each])
        place_of = np.concatenate([self.generator.start(cloze) + np.arange(len(choice)) for cloze, choice in each])
        hidden = hidden_at(self.model, self.vocabulary, rows, row_of, place_of)
        original = functional.logsigmoid(-self.model.heads["replaced"](hidden)).double().cpu().numpy()
        totals = np.bincount(row_of, weights=original, minlength=len(each))
        return np.split(totals, np.cumsum([len(many) for many in choices])[:-1])
