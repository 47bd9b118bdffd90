"""A plain GPT as nanoGPT has it, and the rival of `shakespeare`: its published run on a CPU, shape and options.

Learned positions, LayerNorm, GELU, a tied head, no dropout. The published run: four layers of width 128 with four
heads; windows of 64 characters drawn anywhere in the text, twelve a step; AdamW with 100 steps of warm-up and a cosine
to a tenth of the learning rate, weight decay 0.1 on matrices, gradients clipped at 1. Run as a process of its own:

    python -m benchmarks.training.plain_gpt '{"store": "…", "learning_rate": 1e-3, "seconds": 60, "seed": 0}'

With `seconds` the schedule spans the time from the process's start to its end; with `steps` it is as published.

Axis letters: B windows, T characters, D width, H heads, V characters known.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pretextlm.data.store import Store

LENGTH, WINDOWS = 64, 12
WARMUP_STEPS, FINAL_SHARE, DECAY, BETAS = 100, 0.1, 0.1, (0.9, 0.99)
AT_THE_END = 1.5
"""Seconds kept for the validation after training."""


@dataclass(frozen=True)
class Shape:
    """Attributes: vocabulary, length: rows of the two tables; layers, heads, width: as everywhere."""

    vocabulary: int
    length: int = LENGTH
    layers: int = 4
    heads: int = 4
    width: int = 128


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.inputs, self.output = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        heads = self.inputs(self.norm_1(x_BTD)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(*heads.unbind(), is_causal=True)
        x_BTD = x_BTD + self.output(seen.transpose(1, 2).flatten(2))
        out: Tensor = x_BTD + self.down(functional.gelu(self.up(self.norm_2(x_BTD))))
        return out


class PlainGPT(nn.Module):
    """The model; its weights are drawn as GPT-2's are."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.width
        self.tokens, self.positions = nn.Embedding(shape.vocabulary, width), nn.Embedding(shape.length, width)
        self.layers = nn.Sequential(*(Layer(width, shape.heads) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                onto_the_stream = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(weight, 0.0, 0.02 / (math.sqrt(2 * shape.layers) if onto_the_stream else 1.0))

    def forward(self, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
        """Mean loss in nats."""
        x = self.tokens(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        logits = functional.linear(self.norm(self.layers(x)), self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets_BT.flatten())


def windows(text: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], length: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets (B, T) of the windows that begin at `starts`."""
    both = torch.from_numpy(text[starts[:, None] + np.arange(length + 1)].astype(np.int64))
    return both[:, :-1], both[:, 1:]


@torch.inference_mode()
def loss_of(model: nn.Module, text: np.ndarray[Any, Any]) -> float:
    """Mean over the whole text, in windows that do not overlap; the last one is shorter."""
    total, targets = 0.0, len(text) - 1
    whole = targets // LENGTH
    for some in np.array_split(np.arange(whole) * LENGTH, max(1, whole // 256)):
        total += float(model(*windows(text, some, LENGTH))) * len(some) * LENGTH
    if rest := targets - whole * LENGTH:
        total += float(model(*windows(text, np.array([whole * LENGTH]), rest))) * rest
    return total / targets


def train(order: dict[str, Any], started: float) -> dict[str, float]:
    """One run; `started` is when the process began, by time.time()."""
    torch.set_flush_denormal(True)
    torch.manual_seed(order["seed"])
    rng = np.random.default_rng(order["seed"])
    store = Store.open(Path(order["store"]))
    text = np.asarray(store.train.tokens)
    model = PlainGPT(Shape(store.vocabulary.size))
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    top, seconds, steps = order["learning_rate"], order.get("seconds"), order.get("steps")
    optimizer = torch.optim.AdamW(groups, lr=top, betas=BETAS, fused=True)
    forward = torch.compile(model) if order.get("compile") else model
    begun, step = time.time(), 0
    while True:
        share = (time.time() - begun) / (seconds - AT_THE_END - (begun - started)) if seconds else step / steps
        if share >= 1:
            break
        fall = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = top * min(fall, (step + 1) / WARMUP_STEPS)
        forward(*windows(text, rng.integers(0, len(text) - LENGTH, WINDOWS), LENGTH)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    loss = loss_of(model, np.asarray(store.validation.tokens))
    return {"loss": loss, "steps": step, "parameters": sum(p.numel() for p in model.parameters())}


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(train(given, given.get("started") or time.time())), flush=True)
