"""The study of `pretextlm quickstart`: the three classic objectives at a size that trains in minutes on two CPU
cores.
"""

from __future__ import annotations

from pathlib import Path

from pretextlm.study.plan import StudyPlan

OBJECTIVES = (
    "causal",
    # In a short run many blanks teach faster than BERT's 15 %.
    {"name": "masked", "rate": 0.4},
    # Two stacks of two layers have about the parameters of one stack of four. Fewer targets a row: more rows a step.
    {"name": "span_corruption", "model": {"num_hidden_layers": 2}, "training": {"batch_tokens": 8192}},
)


def quickstart_plan(store: Path, minutes: float, seeds: int) -> StudyPlan:
    """Returns a plan with equal seconds for every objective and seed, `minutes` in total."""
    return StudyPlan.parse(
        {
            "name": "One text, one Transformer, three objectives",
            "store": str(store),
            "objectives": list(OBJECTIVES),
            "seeds": list(range(1, seeds + 1)),
            "budget": {"seconds": 60.0 * minutes / (len(OBJECTIVES) * seeds)},
            "length": 256,
            "model": {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4},
            "training": {"batch_tokens": 2048, "learning_rate": 0.01},
        }
    )
