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
from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pretextlm.batch import IGNORE, Batch, Rows, Term
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Published
from pretextlm.objectives.masked import Masked
from pretextlm.objectives.protocol import Architecture, Forward, Outputs
from pretextlm.objectives.registry import ObjectiveField, with_role
from pretextlm.objectives.shared.wrapper import Wrapper

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pretextlm.model.config import ModelConfig

HIDE, SAMPLE = range(2)
"""Streams of random numbers: the inner objective's, and those of the generator's samples."""


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
    fills: ClassVar[str | None] = "replaced_token"
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
        labels_M = replaced_BT.flatten()[torch.from_numpy(places).to(replaced_BT.device)]
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

    hidden = batch.labels != IGNORE
    device = outputs.hidden_ND.device
    originals = torch.from_numpy(np.where(hidden, batch.labels, batch.input_ids)).to(device)
    draws = torch.from_numpy(batch.draws[hidden]).to(device)
    ids = originals.clone()
    ids[torch.from_numpy(hidden).to(device)] = sample_tokens(outputs.model, outputs.hidden_ND, draws).to(ids.dtype)
    return ids, ids != originals


def _real(batch: Batch) -> NDArray[np.bool_]:
    """Returns (B, T) True where there is no padding."""
    if batch.segment_ids is None:
        return np.ones(batch.input_ids.shape, dtype=bool)
    real: NDArray[np.bool_] = batch.segment_ids >= 0
    return real
