"""The sweep behind training/sizing.py: models of several sizes at several FLOPs, and the fit of their losses.

    python -m benchmarks.sizing stores/sotu --out sweep.jsonl        # hours; goes on where it stopped
    python -m benchmarks.sizing --fit sweep.jsonl                    # the numbers of sizing.FITS

The store: pretextlm data prepare package:sotu --out stores/sotu --vocab-size 1024
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from pretextlm.evaluation.evaluate import evaluate
from pretextlm.objectives.registry import build
from pretextlm.training.pretrain import pretrain
from pretextlm.training.sizing import FITS, MILLION, OPTIONS, SHAPES, block_weights, size_of

VOCAB_SIZE, LENGTH = 1024, 128
SWEEP = {1e12: (48, 64, 96, 128), 3e12: (64, 96, 128), 1e13: (64, 96, 128, 160), 3e13: (128, 192)}
"""FLOPs → widths."""
SEEDS = {(3e12, 96): (1, 2, 3)}
"""(FLOPs, width) → seeds, where not one alone."""
EVALUATION = {"blanks": 500, "prompts": 0, "tokens": 60_000}


def runs(objectives: list[str]) -> Iterator[dict[str, Any]]:
    """Yields (key, recipe without its store) of every run, the cheapest first."""
    for flops, widths in SWEEP.items():
        for width in widths:
            for seed in SEEDS.get((flops, width), (1,)):
                for name in objectives:
                    objective = build(name, OPTIONS.get(name, {}))
                    shape = next(one for one in SHAPES if one[0] == width)
                    size = size_of(objective, shape, flops, VOCAB_SIZE, LENGTH)
                    yield {
                        "key": [name, flops, width, seed],
                        "recipe": {
                            "seed": seed,
                            "data": {"length": LENGTH},
                            "objective": {"name": name, **OPTIONS.get(name, {})},
                            "model": size.model,
                            "training": {"budget_flops": flops, **size.training},
                            "evaluation": EVALUATION,
                        },
                    }


def sweep(store: Path, file: Path, objectives: list[str]) -> None:
    """Runs what the file does not have yet; every run adds a line to it."""
    known = [json.loads(line)["key"] for line in file.read_text().splitlines()] if file.exists() else []
    for run in runs(objectives):
        if run["key"] in known:
            continue
        place = Path(tempfile.mkdtemp())
        recipe = {**run["recipe"], "data": {**run["recipe"]["data"], "store": str(store)}}
        trained = pretrain(recipe, place / "run")
        metrics = evaluate(trained)["metrics"]
        found = {
            "key": run["key"],
            "weights": block_weights(recipe["model"]),
            "tokens": trained.cost()["tokens"],
            "loss": metrics["loss"]["value"],
            "choice": metrics["blank_choice_accuracy"]["value"],
        }
        shutil.rmtree(place)
        print(json.dumps(found), flush=True)
        with file.open("a") as out:
            out.write(json.dumps(found) + "\n")


def fit(points: list[dict[str, Any]]) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Fits the loss by the logarithm, from several beginnings, less sensitive to outliers.

    Returns:
        The numbers of `sizing.Fit`, and the residual of each point as a share of its loss.
    """
    sizes, data, losses = (np.array([p[k] for p in points]) for k in ("weights", "tokens", "loss"))

    def residuals(p: NDArray[np.float64]) -> NDArray[np.float64]:
        size = math.e ** p[1] * (sizes / MILLION) ** -p[2]
        return np.log(math.e ** p[0] + size + math.e ** p[3] * (data / MILLION) ** -p[4]) - np.log(losses)

    bounds = ([-3, -6, 0.05, -6, 0.05], [1.2, 2, 1.5, 2, 1.5])
    starts = [
        [math.log(floor), -1, a, 0, b] for floor in (0.5, 1.5, 2.2) for a in (0.2, 0.4, 0.7) for b in (0.2, 0.4, 0.7)
    ]
    tries = [least_squares(residuals, start, loss="huber", f_scale=0.01, bounds=bounds) for start in starts]
    p = min(tries, key=lambda found: found.cost).x
    names = ("floor", "size_gap", "size_power", "data_gap", "data_power")
    values = (math.e ** p[0], math.e ** p[1], p[2], math.e ** p[3], p[4])
    return dict(zip(names, map(float, values), strict=True)), residuals(p)


def main() -> None:
    """Run or fit the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", nargs="?", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sweep.jsonl"))
    parser.add_argument("--fit", type=Path)
    parser.add_argument("--objectives", nargs="+", default=list(FITS))
    arguments = parser.parse_args()
    if arguments.fit is None:
        sweep(arguments.store, arguments.out, arguments.objectives)
    lines = [json.loads(line) for line in (arguments.fit or arguments.out).read_text().splitlines()]
    for name in arguments.objectives:
        points = [line for line in lines if line["key"][0] == name]
        numbers, residuals = fit(points)
        print(
            name, {key: round(value, 4) for key, value in numbers.items()}, f"rms {np.sqrt((residuals**2).mean()):.4f}"
        )
        for point, residual in zip(points, residuals, strict=True):
            _, flops, width, _ = point["key"]
            print(f"  {flops:.0e} FLOPs, width {width:4}: loss {point['loss']:.3f}, fit {residual:+.1%}")


if __name__ == "__main__":
    main()
