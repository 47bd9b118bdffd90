"""Detect which tokens a small generator has replaced (Clark et al. 2020).

    tokens      [CLS] the chef cooked the meal [SEP]       selected: the first "the", "cooked"
    generator   [CLS] [MASK] chef [MASK] the meal [SEP]    predicts them, and samples: the, ate
    model       [CLS] the chef ate the meal [SEP]
    label         0    0   0    1   0   0     0            1: not the original; a sample may equal it

The generator is a masked language model of a quarter of the width. It is not adversarial: it has the masked loss, and
no gradient of the discriminator reaches it, except through the embedding they share. Every token has a loss, where
masked language modelling has one in seven.

Paper: ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators, https://arxiv.org/abs/2003.10555.
With sharing="gradient_disentangled" the generator alone trains the shared embedding, and the model adds a table of its
own to it: DeBERTaV3, https://arxiv.org/abs/2111.09543 (which masks all selected tokens: inner.mask_share=1.0).

Requires [CLS], [SEP], [MASK] and the other requirements of the inner objective. Suits an encoder. Any objective that
hides tokens in place can be the inner one: masked, bimodal_code.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.metric import Metric, area_under_curve
from pretextlm.objectives.base import Published
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.protocol import Architecture, Forward, Outputs
from pretextlm.objectives.registry import ObjectiveField, with_role
from pretextlm.objectives.shared.measures import FILL_ACCURACY, HeldOutView, Measure
from pretextlm.objectives.shared.wrapper import Wrapper
from pretextlm.scoring.blank import Blank, Candidate
from pretextlm.scoring.blank_layout import InPlaceLayout
from pretextlm.scoring.scorer import Scorer, TokenIds

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective
    from pretextlm.scoring.token_texts import TokenTexts

HIDE, SAMPLE = range(2)
"""Streams of random numbers: the inner objective's, and those of the generator's samples."""


def _replaced_auc(held_out: HeldOutView) -> Metric | None:
    """Returns how often a replaced token has a higher score than an original one.

    Accuracy says little here, since few tokens are replaced. Standard errors are over documents.
    """
    import torch

    logits, labels, owners = [], [], []
    for document, batch in held_out.batches():
        with torch.inference_mode():
            ids, replaced = propose(held_out.forward(batch, "generator"), batch)
            judged = held_out.forward(dataclasses.replace(batch, input_ids=ids, labels=None, draws=None))
            places = np.flatnonzero(_real(batch))
            logits.append(judged.heads["replaced"](judged.hidden_at(places)).double().cpu().numpy())
            labels.append(replaced.cpu().numpy().reshape(-1)[places])
        owners.append(np.full(len(places), document))
    return area_under_curve(np.concatenate(logits), np.concatenate(labels), np.concatenate(owners))


REPLACED_AUC = Measure(
    "replaced_auc",
    "Replaced told from original",
    "How often a replaced token seems more so than an original one; blind: half.",
    _replaced_auc,
)
GENERATOR_ACCURACY = Measure(
    "generator_accuracy",
    "Generator's fill accuracy",
    "Share of hidden tokens that the generator restores.",
    FILL_ACCURACY.compute,
)
REPLACED_LOSS = Measure(
    "replaced_loss", "Loss of the judge", "The part of the loss from telling replaced tokens, per token."
)
REPLACED_ACCURACY = Measure(
    "replaced_accuracy",
    "Tokens judged right",
    "Share of all tokens rightly told as original or replaced; most are original.",
)


class ReplacedToken(Wrapper):
    """Replaced-token detection over an objective that hides tokens in place.

    Args:
        inner: the generator's objective: which tokens are hidden, and how. ELECTRA leaves 15 % of the selected tokens
            as they are.
        generator_size: width, heads and feed-forward layer of the generator as a share of the model's; its depth is
            the same.
        weight: of the discriminator's loss (λ); the generator's has weight 1.
        sharing: of the embedding table between generator and model: "tied", "gradient_disentangled" or "none".
    """

    name: ClassVar[str] = "replaced_token"
    title: ClassVar[str] = "Replaced-token detection"
    paper: ClassVar[str] = "Clark et al. 2020, https://arxiv.org/abs/2003.10555"
    summary: ClassVar[str] = (
        "A small generator fills in hidden tokens, and the model tells of every token whether it is the original."
    )
    architectures: ClassVar[tuple[Architecture, ...]] = ("encoder",)
    measures: ClassVar[tuple[Measure, ...]] = (REPLACED_AUC, GENERATOR_ACCURACY, REPLACED_LOSS, REPLACED_ACCURACY)
    published_as: ClassVar[tuple[Published, ...]] = (Published(head="replaced"),)

    inner: ObjectiveField = Field(
        default=Masked(mask_share=0.85, random_share=0.0), description="how tokens are hidden from the generator"
    )
    generator_size: float = Field(default=0.25, gt=0, le=1, description="the generator's width, of the model's")
    weight: float = Field(default=50.0, gt=0, description="weight of the discriminator's loss")
    sharing: Literal["tied", "gradient_disentangled", "none"] = Field(
        default="tied", description="of the embedding table between generator and model"
    )

    @model_validator(mode="after")
    def _inner_hides_in_place(self) -> Self:
        if "hides_in_place" not in self.inner.roles:
            can = with_role("hides_in_place")
            raise ValueError(f"the generator cannot learn {self.inner.name!r}; it can: {can}")
        if getattr(self.inner, "predict", "here") != "here":
            raise ValueError('the generator predicts hidden tokens in place: give inner.predict="here"')
        return self

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels of a token."""
        return {0: "original", 1: "replaced"}

    def scorer(self, model: Transformer, texts: TokenTexts) -> Scorer | None:
        """The generator proposes candidates, and the model judges them."""
        return DiscriminatorScorer(model, texts, self.inner)

    def collate(self, rows: Rows, vocabulary: Vocabulary, rng: CounterRNG) -> Batch:
        """Returns the generator's batch, with a random number for every token that it may sample."""
        batch = self.inner.collate(rows, vocabulary, rng.fork(HIDE))
        draws = (rng.bits(SAMPLE, batch.input_ids.shape[1]) >> np.uint64(33)).astype(np.int32)
        return dataclasses.replace(batch, draws=draws)

    def heads(self, config: ModelConfig) -> dict[str, nn.Module]:
        from pretextlm.model.replaced_token_head import DeltaEmbedding, Generator, ReplacedTokenHead, generator_config
        from pretextlm.model.transformer import EMBED_DELTA

        generator = Generator(generator_config(config, self.generator_size), self.sharing != "none")
        heads: dict[str, nn.Module] = {"generator": generator, "replaced": ReplacedTokenHead(config)}
        if self.sharing == "gradient_disentangled":
            heads[EMBED_DELTA] = DeltaEmbedding(config.vocab_size, config.embedding_size)
        return heads

    def flops(self, config: ModelConfig, batch: Batch) -> float:
        """Returns the operations of the generator with its head, and of the model without one."""
        from pretextlm.model.flops import training_flops
        from pretextlm.model.replaced_token_head import generator_config

        small = generator_config(config, self.generator_size)
        labels = int(np.count_nonzero(batch.labels != IGNORE))
        return training_flops(small, batch, labels) + training_flops(config, batch, 0)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Returns the number of hidden tokens, and of all that are not padding."""
        return {"lm": int(np.count_nonzero(batch.labels != IGNORE)), "replaced": int(_real(batch).sum())}

    def loss_mask(self, batch: Batch) -> NDArray[np.bool_]:
        return _real(batch)

    def step(self, forward: Forward, batch: Batch) -> dict[str, Term]:
        """Returns the loss of the generator, and of the model on the text with the generator's samples."""
        import torch
        from torch.nn import functional

        proposed = forward(batch, "generator")
        ids_BT, replaced_BT = propose(proposed, batch)
        judged = forward(dataclasses.replace(batch, input_ids=ids_BT, labels=None, draws=None))
        places = np.flatnonzero(_real(batch).reshape(-1))
        logits_M = judged.heads["replaced"](judged.hidden_at(places))
        index = torch.from_numpy(places).to(replaced_BT.device, non_blocking=True)
        labels_M = replaced_BT.flatten().index_select(0, index)
        total = functional.binary_cross_entropy_with_logits(logits_M, labels_M.float(), reduction="sum")
        correct = ((logits_M.detach() > 0) == labels_M).sum()
        return {
            "lm": Term(proposed.cross_entropy(), proposed.labels_N.numel()),
            "replaced": Term(total, len(places), self.weight, correct),
        }


def propose(outputs: Outputs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Returns (B, T) the text with the generator's samples at hidden positions, and where it is not the original."""
    import torch

    from pretextlm.model.replaced_token_head import sample_tokens

    def on_device(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(outputs.hidden_ND.device, non_blocking=True)

    hidden = batch.labels != IGNORE
    originals = on_device(np.where(hidden, batch.labels, batch.input_ids))
    sampled = sample_tokens(outputs.model, outputs.hidden_ND, on_device(batch.draws[hidden]))
    ids = originals.clone()
    # At numbers of positions: at a mask of booleans, the host would wait for the device to count them.
    ids.view(-1).index_copy_(0, on_device(np.flatnonzero(hidden)), sampled.to(ids.dtype))
    return ids, ids != originals


def _real(batch: Batch) -> NDArray[np.bool_]:
    """Returns (B, T) True where there is no padding."""
    if batch.segment_ids is None:
        return np.ones(batch.input_ids.shape, dtype=bool)
    real: NDArray[np.bool_] = batch.segment_ids >= 0
    return real


CANDIDATES = 8
"""Candidates of the generator that are judged, at least."""


class DiscriminatorScorer(Scorer):
    """The generator proposes candidates, and the model judges them; so it does with given ones.

        generator    [CLS] The [MASK] sat on the mat . [SEP]      proposes: cat, dog, …
        model        [CLS] The cat sat on the mat . [SEP]         is "cat" the original? log p

    Scores are Σ log p(token is the original | the text with the candidate in it) over the candidate's tokens, in nats.
    They are not log-likelihoods of the candidate: the model never learns which tokens could be in a place, only which
    could not.

    Args:
        inner: the generator's objective.
    """

    layout: InPlaceLayout

    def __init__(self, model: Transformer, texts: TokenTexts, inner: Objective) -> None:
        from pretextlm.model.transformer import Transformer

        generator = model.heads["generator"]
        assert isinstance(generator, Transformer), "the generator is a model"
        proposer = inner.scorer(generator, texts)
        assert proposer is not None, "the generator hides tokens in place"
        assert isinstance(proposer.layout, InPlaceLayout), "the generator hides tokens in place"
        super().__init__(model, texts, proposer.layout)
        self.generator = proposer

    def log_likelihoods(
        self, blanks: Sequence[Blank], candidates: Sequence[Sequence[TokenIds]]
    ) -> list[NDArray[np.float64]]:
        import torch
        from torch.nn import functional

        from pretextlm.scoring.log_probabilities import hidden_states_at

        each = [(blank, candidate) for blank, many in zip(blanks, candidates, strict=True) for candidate in many]
        rows = [self.layout.row(blank, candidate) for blank, candidate in each]
        row_N = np.repeat(np.arange(len(each)), [len(candidate) for _, candidate in each])
        column_N = np.array([column for row in rows for column in row.columns.values()])
        with torch.inference_mode():
            hidden_ND = hidden_states_at(self.model, self.vocabulary, rows, row_N, column_N)
            original_N = functional.logsigmoid(-self.model.heads["replaced"](hidden_ND)).double().cpu().numpy()
        totals = np.bincount(row_N, weights=original_N, minlength=len(each))
        return np.split(totals, np.cumsum([len(many) for many in candidates])[:-1])

    def best_candidates(self, blanks: Sequence[Blank], top: int, max_tokens: int) -> list[list[Candidate]]:
        proposed = self.generator.best_candidates(blanks, max(CANDIDATES, top), max_tokens)
        scores = self.log_likelihoods(blanks, [[candidate.tokens for candidate in many] for many in proposed])
        judged = [
            [Candidate(candidate.tokens, float(score)) for candidate, score in zip(many, values, strict=True)]
            for many, values in zip(proposed, scores, strict=True)
        ]
        return [sorted(many, key=lambda candidate: -candidate.score)[:top] for many in judged]
