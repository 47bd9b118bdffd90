"""One setting that both sides share: objective, shape, store. Everything else of a measurement follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

OBJECTIVES = ("causal", "masked", "span_corruption")


@dataclass(frozen=True)
class Setting:
    """Attributes: objective; store: path; layers: of the one stack, for span corruption of both together; hidden,
    heads, length: as in ModelConfig; batch_tokens, micro_tokens: raw tokens per step and per pass."""

    objective: str
    store: str
    layers: int = 6
    hidden: int = 256
    heads: int = 4
    length: int = 256
    batch_tokens: int = 8192
    micro_tokens: int = 4096

    def recipe(self, objective: Mapping[str, Any] | None = None, **training: Any) -> dict[str, Any]:
        """Tables of our recipe; options of the objective and `training` on top."""
        layers = self.layers // 2 if self.objective == "span_corruption" else self.layers
        return {
            "name": f"benchmark-{self.objective}",
            "data": {"store": self.store, "length": self.length},
            "objective": {"name": self.objective, **(objective or {})},
            "model": {
                "hidden_size": self.hidden,
                "num_hidden_layers": layers,
                "num_attention_heads": self.heads,
            },
            "training": {
                "batch_tokens": self.batch_tokens,
                "micro_batch_tokens": self.micro_tokens,
                "threads": 1,
                "validations": 0,
                **training,
            },
        }

    def plain(self) -> dict[str, Any]:
        return asdict(self)
