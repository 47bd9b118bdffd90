"""The loss on other stores before and after continued pre-training, and the difference: how much a run forgot.

The same rows were measured before and after, so the difficulty of a document cancels out of the difference. Standard
errors are over documents; with fewer than ten there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pretextlm.evaluation.result_files import EVALUATION
from pretextlm.files import write_json
from pretextlm.metric import Clusters, Metric, in_bits
from pretextlm.plain_files import read_json
from pretextlm.training.forgetting import StoreLoss, read_forgetting
from pretextlm.training.run_directory import Run

IN_BITS = {
    "loss_before": "bits_per_byte_before",
    "loss_after": "bits_per_byte_after",
    "forgotten": "forgotten_bits_per_byte",
}
"""Names of measures in nats → of the same in bits per byte."""


def forgetting(run: Run) -> tuple[dict[str, Metric], dict[str, Any]]:
    """Returns (metrics of each watched store by `measure:store`, settings of each store).

    Stores that were not measured both before and after are left out: those that were added during training, or all of
    a run that has not ended.

    Raises:
        UserError: the run's record of losses is damaged.
    """
    metrics: dict[str, Metric] = {}
    about: dict[str, Any] = {}
    for name, memory in read_forgetting(run.directory).items():
        if "before" not in memory or "after" not in memory:
            continue
        before, after = (np.array(memory[moment], np.float64) for moment in ("before", "after"))
        counts, batches = np.array(memory["counts"], np.int64), memory["batches"]
        arrays = (np.array(batches["document"]), np.array(batches["source"]), np.array(batches["weight"]))
        clusters = Clusters(*arrays)
        found = {"loss_before": before, "loss_after": after, "forgotten": after - before}
        for measure, totals in found.items():
            metrics[f"{measure}:{name}"] = StoreLoss(totals, counts, memory["coefficients"], clusters).metric
        if run.recipe.training_objective.at_evaluation().models_every_token:
            rate = float(clusters.summed(counts[0]).sum()) / memory["weighted_bytes"]
            for measure, in_bits_name in IN_BITS.items():
                metrics[f"{in_bits_name}:{name}"] = in_bits(metrics[f"{measure}:{name}"], rate, memory["text_bytes"])
        sizes = ("documents", "documents_total", "tokens", "tokens_total")
        about[name] = {key: memory[key] for key in ("store", *sizes, "after_step")}
    return metrics, about


def note_forgetting(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Adds the metrics of forgetting to a run's evaluation.json.

    Returns:
        The metrics as plain values, and the settings of each store.
    """
    metrics, about = forgetting(Run.open(directory))
    plain = {name: metric.plain() for name, metric in metrics.items()}
    if not plain:
        return plain, about
    path = directory / EVALUATION
    old = read_json(path) if path.exists() else {}
    settings = {**old.get("settings", {}), "forgetting": about}
    write_json(path, {**old, "metrics": {**old.get("metrics", {}), **plain}, "settings": settings})
    return plain, about


def lines(metrics: Mapping[str, Mapping[str, Any]], about: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a readable line for each watched store."""
    found = []
    for name in [name.removeprefix("forgotten:") for name in metrics if name.startswith("forgotten:")]:
        before, after, lost = (metrics[f"{measure}:{name}"] for measure in ("loss_before", "loss_after", "forgotten"))
        error = "" if lost["stderr"] is None else f" ± {lost['stderr']:.4f}"
        few = ", too few for a standard error" if lost["stderr"] is None else ""
        read = f"{about[name]['documents']:,} of {about[name]['documents_total']:,} documents{few}"
        found.append(
            f"forgotten of {name}: {lost['value']:+.4f}{error} nats a target "
            f"({before['value']:.4f} before, {after['value']:.4f} after; {read})"
        )
    return found
