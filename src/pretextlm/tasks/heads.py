"""What a task trains on top of the trunk.

Axis letters: E examples, N tokens, D hidden_size, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import ModelConfig

STD = 0.02


class SequenceHead(nn.Module):
    """A number or a score for each class of an example, from the state that speaks for it: dense, tanh, a matrix.

    As BERT's pooler and classifier (Devlin et al. 2019). In fp32 whatever the trunk's type: it is one state an example.
    """

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out = nn.Linear(config.hidden_size, outputs)

    def forward(self, state_ED: Tensor) -> Tensor:
        """(E, D) → (E, C)."""
        out_EC: Tensor = self.out(torch.tanh(self.dense(state_ED.to(self.dense.weight.dtype))))
        return out_EC

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Matrices N(0, 0.02²), biases 0."""
        for layer in (self.dense, self.out):
            layer.weight.normal_(0.0, STD, generator=generator)
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
