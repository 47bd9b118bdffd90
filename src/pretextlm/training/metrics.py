"""metrics.jsonl: one object a line, written as it happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pretextlm.training.run import METRICS, Run

AVERAGED = ("loss", "gradient_norm", "tokens_per_second", "data_wait")


class MetricsLog:
    """Appends lines; a line of training averages the steps since the last one."""

    def __init__(self, run: Run) -> None:
        self._path = run.directory / METRICS

    def train(self, values: Mapping[str, float], window: Mapping[str, float], every: int) -> dict[str, float]:
        """Add one step to the running sums and write a line when `step` is a multiple of `every`.

        Returns the sums to carry on: they belong to the trainer's state, so that a resumed run writes the same lines.
        """
        sums = {name: window.get(name, 0.0) + values[name] for name in AVERAGED}
        sums["steps"] = window.get("steps", 0.0) + 1
        if values["step"] % every:
            return sums
        means = {name: sums[name] / sums["steps"] for name in AVERAGED}
        self._write({"kind": "train", **values, **means})
        return {}

    def validation(self, values: Mapping[str, float]) -> None:
        self._write({"kind": "validation", **values})

    def _write(self, line: Mapping[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line)) + "\n")
