"""Who is raced to a loss: each rival's model, number format, optimizer, schedule and the rates its tuning begins with.

The number format is the fastest of `systems` that keeps its weights in fp32: in bf16 AdamW's small updates are rounded
away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from benchmarks.training import decoders
from benchmarks.training.peers import MODERN_BERT, Format

WRITTEN_OUT = Format("autocast", compiled=True, attention="eager")
"""transformers' fastest; AdamW as its Trainer has it."""


@dataclass(frozen=True)
class Rival:
    """Attributes: form; rates: learning rates, tried in turn; schedule; final: share of the top rate at the end;
    objective: options of the objective in training."""

    form: Format
    rates: tuple[float, ...]
    schedule: str = "cosine"
    final: float = 0.0
    objective: Mapping[str, Any] = field(default_factory=dict)

    def options(self, learning_rate: float) -> dict[str, Any]:
        """For the worker."""
        return {
            "learning_rate": learning_rate,
            "schedule": self.schedule,
            "final": self.final,
            "objective": dict(self.objective),
            "form": asdict(self.form),
        }


def plain_decoder(name: str) -> Rival:
    """AdamW with nanoGPT's rates of decay, down to a tenth of the top; litgpt's pre-training has the same."""
    form = Format("autocast", compiled=True, beta2=0.95, weight_decay=0.1, model=name)
    return Rival(form, (1e-3, 2e-3, 4e-3), final=0.1)


def rivals(objective: str) -> list[Rival]:
    """transformers' class first, then those that others train."""
    if objective == "causal":
        return [Rival(WRITTEN_OUT, (5e-4, 1e-3, 2e-3)), *(plain_decoder(name) for name in decoders.there())]
    if objective == "masked":
        modern = replace(WRITTEN_OUT, model=MODERN_BERT, beta2=0.98)
        return [Rival(WRITTEN_OUT, (2.5e-4, 5e-4, 1e-3)), Rival(modern, (1e-3, 2e-3, 4e-3), objective={"rate": 0.3})]
    scaled = Format("autocast", compiled=True, attention="eager", optimizer="scaled")
    return [Rival(WRITTEN_OUT, (5e-4, 1e-3, 3e-3)), Rival(scaled, (2e-2, 4e-2, 8e-2))]
