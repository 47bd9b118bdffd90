"""lm-eval over a published decoder, through pretextlm and through its own transformers model: the same numbers.

    pretextlm import DIR --out runs/published
    python -m benchmarks.lm_eval_parity DIR runs/published --data DATA --limit 100

Each model is asked at batch sizes 1 and 16. DATA holds local copies as docs/evaluation.md says; without it, lm-eval's
own sources are read.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from lm_eval.models.huggingface import HFLM

from pretextlm.evaluation.benchmarks.run import Opened
from pretextlm.evaluation.harness import HarnessModel, run_tasks

TASKS = (
    "lambada_openai,blimp_adjunct_island,blimp_anaphor_number_agreement,blimp_wh_vs_that_no_gap_long_distance,arc_easy"
)
BATCH_SIZES = (1, 16)


def scores(model: Any, arguments: argparse.Namespace, batch_size: int) -> dict[tuple[str, str], float]:
    """(task, metric) → value."""
    results, _ = run_tasks(model, arguments.tasks, arguments.data, arguments.shots, arguments.limit, batch_size, 0)
    found = {}
    for task, values in results["results"].items():
        for key, value in values.items():
            if key.endswith(",none") and "stderr" not in key and isinstance(value, float):
                found[task, key.removesuffix(",none")] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("published", help="directory in Hugging Face's layout")
    parser.add_argument("run", type=Path, help="run directory it was imported to")
    parser.add_argument("--data", default="hf:")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--shots", type=int)
    parser.add_argument("--limit", type=int)
    arguments = parser.parse_args()
    columns: dict[str, dict[tuple[str, str], float]] = {}
    for batch_size in BATCH_SIZES:
        start = time.perf_counter()
        ours = HarnessModel(Opened(arguments.run), batch_size=batch_size)
        columns[f"ours, {batch_size}"] = scores(ours, arguments, batch_size)
        middle = time.perf_counter()
        theirs = HFLM(pretrained=arguments.published, batch_size=batch_size, device="cpu", dtype="float32")
        columns[f"transformers, {batch_size}"] = scores(theirs, arguments, batch_size)
        print(f"batch size {batch_size}: {middle - start:.0f} s, {time.perf_counter() - middle:.0f} s", flush=True)
    print("task, metric:", ", ".join(columns))
    worst = 0.0
    for key in next(iter(columns.values())):
        values = [column[key] for column in columns.values()]
        worst = max(worst, max(values) - min(values))
        print(*key, *(f"{value:.6f}" for value in values))
    print(f"largest difference: {worst:.1e}")


if __name__ == "__main__":
    main()
