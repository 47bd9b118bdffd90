"""What a task trains on top of the trunk.

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
"""What may follow the dense layer of a head."""


class SequenceHead(nn.Module):
    """A number or a score for each class of an example, from the state that speaks for it: dense, tanh, a matrix.

    As BERT's pooler and classifier (Devlin et al. 2019). In fp32 whatever the trunk's type: it is one state an example.

    Args:
        form: what follows the dense layer; "plain": there is none, and the matrix has no bias, as decoders have it.
    """

    def __init__(self, config: ModelConfig, outputs: int, form: str = "tanh") -> None:
        super().__init__()
        plain = form == "plain"
        self.activation = None if plain else FORMS[form]
        self.dense = None if plain else nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, outputs, bias=not plain)

    def forward(self, state_ED: Tensor) -> Tensor:
        """(E, D) → (E, C)."""
        state_ED = state_ED.to(self.out.weight.dtype)
        if self.dense is not None and self.activation is not None:
            state_ED = self.activation(self.dense(state_ED))
        out_EC: Tensor = self.out(state_ED)
        return out_EC

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Matrices N(0, 0.02²), biases 0."""
        for layer in (self.dense, self.out):
            if layer is not None:
                layer.weight.normal_(0.0, STD, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()


class TokenHead(nn.Module):
    """Scores for each token: one matrix."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.out = nn.Linear(config.hidden_size, outputs)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """(N, D) → (N, C) in fp32."""
        layer = self.out
        scores: Tensor = functional.linear(hidden_ND, layer.weight.to(hidden_ND.dtype)).float() + layer.bias
        return scores

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """The matrix N(0, 0.02²), the bias 0."""
        self.out.weight.normal_(0.0, STD, generator=generator)
        self.out.bias.zero_()
