"""Layers that every other module of the model is built from: linear, embedding table, activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

INITIAL_STD = 0.02
"""Standard deviation of embedding tables and of the language-model head before training."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": lambda x: functional.relu(x).square(),  # So et al. 2021, https://arxiv.org/abs/2109.08668
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
"""Activation functions by their name in `FeedForwardConfig.activation`."""


class Linear(nn.Linear):
    """A linear layer with fp32 weights that are cast to the type of the input on use; without a bias by default."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__(in_features, out_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: (…, in_features) in any floating type.

        Returns:
            (…, out_features) in the type of `x`.
        """
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


JOIN_ON = ("cuda",)
"""Devices on which `project` joins layers; on a CPU, one product is no faster than several."""


def project(x: Tensor, *layers: nn.Module) -> tuple[Tensor, ...]:
    """Apply linear layers to one input: on a GPU in one product where their weights are cast on use.

    Small products leave most of a GPU idle. The cast writes every weight anyway, so joining them costs no copy once it
    is compiled. Layers keep their own parameters; one that is not exactly a `Linear`, such as an adapter around it, is
    applied by itself with all others.

    Args:
        x: (…, in_features).
        layers: Layers of the same in_features.

    Returns:
        The output of each layer.
    """
    plain = [layer for layer in layers if type(layer) is Linear and layer.weight.dtype != x.dtype]
    biased = {layer.bias is not None for layer in plain}
    if x.device.type not in JOIN_ON or len(plain) < len(layers) or len(biased) > 1:
        return tuple(layer(x) for layer in layers)
    weight = torch.cat([layer.weight.to(x.dtype) for layer in plain])
    bias = torch.cat([layer.bias.to(x.dtype) for layer in plain]) if True in biased else None
    return torch.functional.split(functional.linear(x, weight, bias), [layer.out_features for layer in plain], dim=-1)


class EmbeddingTable(nn.Embedding):
    """An embedding whose rows are initialized by the module that holds it.

    torch's own initialization of an embedding on the meta device imports torch's compiler, which takes seconds.
    """

    def reset_parameters(self) -> None:
        """Do nothing; see the class."""


def soft_cap(scores: Tensor, softcap: float) -> Tensor:
    """Bound scores smoothly: softcap · tanh(scores / softcap), as in Gemma 2 (https://arxiv.org/abs/2408.00118).

    Args:
        scores: Attention scores or logits.
        softcap: Their bound; 0 for none.

    Returns:
        Scores inside ±softcap; `scores` itself when `softcap` is 0.
    """
    return softcap * torch.tanh(scores / softcap) if softcap else scores


def init_uniform_fan_in(layer: nn.Linear, generator: torch.Generator | None) -> None:
    """Initialize a linear layer: weight uniform with variance 1/in_features, bias 0.

    A uniform variable on ±b has variance b²/3, so b = √(3 / in_features).
    """
    bound = (3.0 / layer.in_features) ** 0.5
    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
