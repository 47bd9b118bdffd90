"""The heads of tasks: modules on top of the model's hidden states.

Axis letters: E examples, N tokens, D hidden_size, C outputs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import ModelConfig

STD = 0.02
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}
"""Activations of a head's dense layer."""


class SequenceHead(nn.Module):
    """Scores of an example from its pooled state: a dense layer, an activation, and an output layer.

    As BERT's pooler and classifier (Devlin et al. 2019). It computes in fp32 whatever the model's type, since it reads
    one state per example.

    Args:
        config: shape of the model.
        outputs: number of scores.
        form: activation of the dense layer; "plain": no dense layer, and an output layer without bias, as in decoders.
    """

    def __init__(self, config: ModelConfig, outputs: int, form: str = "tanh") -> None:
        super().__init__()
        plain = form == "plain"
        self.activation = None if plain else FORMS[form]
        self.dense = None if plain else nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, outputs, bias=not plain)

    def forward(self, state_ED: Tensor) -> Tensor:
        """Returns (E, C) scores of the pooled states (E, D)."""
        state_ED = state_ED.to(self.out.weight.dtype)
        if self.dense is not None and self.activation is not None:
            state_ED = self.activation(self.dense(state_ED))
        out_EC: Tensor = self.out(state_ED)
        return out_EC

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialises matrices from N(0, 0.02²) and biases with 0."""
        for layer in (self.dense, self.out):
            if layer is not None:
                layer.weight.normal_(0.0, STD, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()


class TokenHead(nn.Module):
    """Scores of each token: one linear layer.

    Args:
        config: shape of the model.
        outputs: number of scores.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, outputs)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Returns (N, C) scores in fp32 of the hidden states (N, D)."""
        layer = self.out
        scores: Tensor = functional.linear(hidden_ND, layer.weight.to(hidden_ND.dtype)).float() + layer.bias
        return scores

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Initialises the matrix from N(0, 0.02²) and the bias with 0."""
        self.out.weight.normal_(0.0, STD, generator=generator)
        self.out.bias.zero_()
