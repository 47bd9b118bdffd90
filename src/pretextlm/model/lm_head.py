"""The language-model head: hidden states become logits over the vocabulary.

The head's matrix itself is `Transformer.lm_head`, or the embedding table where the two are tied.

Axis letters: N labelled positions, D hidden_size, E embedding_size, V vocab_size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.model.config import ModelConfig
from pretextlm.model.layers import ACTIVATIONS, Linear, init_uniform_fan_in, soft_cap
from pretextlm.model.norm import Norm


class LMHeadTransform(nn.Module):
    """The layers before the head's matrix (BERT's prediction head transform), and the head's bias.

    Attributes:
        bias: (V,) added to the logits, by whoever computes them; None without a bias.
        pooler: A layer that no language model reads; published encoders carry one, and it is kept for export.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        head, size = config.head, config.embedding_size
        factorized = size != config.hidden_size
        dense = head.dense or factorized
        self.dense = Linear(config.hidden_size, size, head.dense and head.dense_bias) if dense else None
        self.activation = None if head.activation == "none" else ACTIVATIONS[head.activation]
        self.norm = Norm(config.norm, size) if head.norm else nn.Identity()
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if head.bias else None
        self.pooler = Linear(config.hidden_size, config.hidden_size, True) if head.pooler else None
        if self.pooler is not None:
            self.pooler.requires_grad_(False)  # no loss reaches it
        self.scale = head.scale

    def reset_parameters(self, generator: torch.Generator | None) -> None:
        """Initialize the dense layers with variance 1/fan-in, and biases with 0."""
        for layer in (self.dense, self.pooler):
            if layer is not None:
                init_uniform_fan_in(layer, generator)
        if isinstance(self.norm, Norm):
            self.norm.reset_parameters()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Transform hidden states.

        Returns:
            (N, E) the input of the head's matrix.
        """
        x = hidden_ND if self.dense is None else self.dense(hidden_ND)
        if self.activation is not None:
            x = self.activation(x)
        out: Tensor = self.norm(x)
        return out * self.scale if self.scale != 1 else out


def lm_logits(x_NE: Tensor, weight_VE: Tensor, softcap: float, bias_V: Tensor | None = None) -> Tensor:
    """Multiply by the head's matrix.

    Args:
        x_NE: Output of `LMHeadTransform`.
        weight_VE: The head's matrix, cast to the type of `x_NE`.
        softcap: Bound of the logits; 0 for none.
        bias_V: Bias of the head.

    Returns:
        (N, V) logits.
    """
    bias = None if bias_V is None else bias_V.to(x_NE.dtype)
    return soft_cap(functional.linear(x_NE, weight_VE.to(x_NE.dtype), bias), softcap)
