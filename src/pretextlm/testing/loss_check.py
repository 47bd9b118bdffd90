"""The check of an objective's loss, with a small random model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from pretextlm.model.config import ModelConfig
from pretextlm.model.transformer import Transformer
from pretextlm.objectives.base import Objective
from pretextlm.objectives.causal import Causal
from pretextlm.testing.contract import Contract
from pretextlm.testing.unique_text import check, one_row
from pretextlm.training.forward import Forward

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.objectives.protocol import Architecture


def check_loss_is_a_sum(contract: Contract, architecture: Architecture) -> None:
    """The loss terms and gradients of a step do not depend on how it is cut into batches.

    Each term's total is the sum over the batches, its count the one that `counts` gives, and all are finite.
    """
    objective = contract.objective
    config = ModelConfig.parse(
        {
            "architecture": architecture,
            "vocab_size": contract.vocabulary.size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "type_vocab_size": objective.num_token_types(),
        }
    )
    model = _small_model(config, objective)
    forward = _forward(model, objective, config)
    complete = [batch for _, batch in contract.read(8)]
    single = [one_row(batch, row) for batch in complete for row in range(len(batch.input_ids))]
    results = []
    for cut in (complete, single):
        model.zero_grad()
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for batch in cut:
            expected = objective.counts(batch)
            terms = objective.step(forward, batch)
            check({name: term.count for name, term in terms.items()} == expected, "terms have the counts of `counts`")
            for name, term in terms.items():
                check(bool(torch.isfinite(term.total)), f"the term {name!r} is finite")
                check(bool(term.count or not term.total.item()), f"the term {name!r} is 0 without targets")
                totals[name] = totals.get(name, 0.0) + term.total.item()
                counts[name] = counts.get(name, 0) + term.count
            loss: Tensor = torch.stack([term.coefficient * term.total / 1000 for term in terms.values()]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        results.append((totals, counts, {n: p.grad for n, p in model.named_parameters()}))
    (totals, counts, gradients), (other_totals, other_counts, other_gradients) = results
    check(counts == other_counts, "counts do not depend on how a step is cut")
    for name, total in totals.items():
        close = abs(total - other_totals[name]) <= 1e-5 * abs(other_totals[name])
        check(close, f"the term {name!r} does not depend on how a step is cut")
    for name, gradient in gradients.items():
        other = other_gradients[name]
        if gradient is None or other is None:
            check(gradient is None and (other is None or not other.any()), f"{name} has a gradient however cut")
        else:
            check(torch.allclose(gradient, other, rtol=1e-4, atol=1e-6), f"{name}'s gradient is that of the sum")


def _small_model(config: ModelConfig, objective: Objective) -> Transformer:
    model = Transformer(config, objective.heads(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def _forward(model: Transformer, objective: Objective, config: ModelConfig) -> Forward:
    """Returns the forward pass, with a small random model in every frozen role, so that no run is needed."""
    forward = Forward(model, Causal(), torch.device("cpu"), torch.float32)
    forward.models |= {role: _small_model(config, objective) for role in objective.frozen_models()}
    return forward
