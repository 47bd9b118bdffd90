"""Decoders of others that take what transformers' classes take and give the loss: a plain GPT as nanoGPT's, litgpt's.

litgpt is optional: `pip install --no-deps litgpt lightning lightning-utilities torchmetrics jsonargparse` puts what is
needed of it beside any version of torch.
"""

from __future__ import annotations

import importlib.util

from benchmarks.training.plain_gpt import PlainGPT, Shape
from benchmarks.training.setting import Setting
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

NANOGPT, LITGPT = "nanogpt", "litgpt"
NAMES = {NANOGPT: "plain GPT, nanoGPT-style", LITGPT: "litgpt's GPT"}


def there() -> list[str]:
    """Those that can be built here."""
    return [NANOGPT, *([LITGPT] if importlib.util.find_spec("litgpt") else [])]


def build(name: str, setting: Setting, vocabulary: int) -> nn.Module:
    """One of `there` with its own initial weights and a tied head."""
    return {NANOGPT: Plain, LITGPT: Lit}[name](setting, vocabulary)


class Plain(nn.Module):
    """nanoGPT's shape."""

    def __init__(self, setting: Setting, vocabulary: int) -> None:
        super().__init__()
        self.model = PlainGPT(Shape(vocabulary, setting.length, setting.layers, setting.heads, setting.hidden))

    def forward(self, input_ids: Tensor, labels: Tensor, shift_labels: Tensor) -> Tensor:
        loss: Tensor = self.model(input_ids, shift_labels)
        return loss


class Lit(nn.Module):
    """litgpt's class in a shape like Pythia's: rotary positions on a quarter of each head, LayerNorm, GELU."""

    def __init__(self, setting: Setting, vocabulary: int) -> None:
        super().__init__()
        from litgpt.config import Config
        from litgpt.model import GPT

        config = Config(
            name="benchmark",
            block_size=setting.length,
            vocab_size=vocabulary,
            padded_vocab_size=vocabulary,
            n_layer=setting.layers,
            n_head=setting.heads,
            n_embd=setting.hidden,
            intermediate_size=4 * setting.hidden,
        )
        self.model = GPT(config)
        self.model.lm_head.weight = self.model.transformer.wte.weight
        for weight in self.model.parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, 0.0, 0.02)

    def forward(self, input_ids: Tensor, labels: Tensor, shift_labels: Tensor) -> Tensor:
        return cross_entropy(self.model(input_ids).flatten(0, 1), shift_labels.flatten())
