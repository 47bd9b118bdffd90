"""What all commands share: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def stderr() -> Console:
    """Where progress, notes and errors go."""
    from rich.console import Console

    return Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON object on stdout, and nothing else there."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def echo_comparison(measured: Mapping[str, Any]) -> None:
    """Prints the loss, or the scores of a task, before and after compression, or why they are not known."""
    if "scores" in measured:
        for name, score in measured["scores"].items():
            print(f"{name}: {_metric(score['before'])} → {_metric(score['after'])} (standard errors, same records)")
    elif measured["loss"] is None:
        print(f"loss: not measured, {measured['not_measured']}")
    else:
        loss = measured["loss"]
        before, after, change = (_metric(loss[name], "+" if name == "change" else "") for name in loss)
        print(f"loss: {before} → {after} nats per target; change {change} (standard errors, same rows)")


def _metric(metric: Mapping[str, Any], sign: str = "") -> str:
    error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
    return f"{metric['value']:{sign}.4f}{error}"
