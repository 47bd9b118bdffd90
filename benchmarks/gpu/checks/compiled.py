"""The compiler: no block runs uncompiled after the first step, whatever the lengths, and losses are the eager ones."""

from __future__ import annotations

from typing import Any

import torch
from benchmarks.gpu.checks.common import assert_near, losses, store, tables, train
from benchmarks.gpu.isolation import item

from pretextlm.model.blocks import Block
from pretextlm.training.callbacks.base import Callback

SECTION = "7 compiled"
STEPS = 8
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "causal": ("causal", {}),
    "causal, two passes": ("causal", {"micro_batch_tokens": 512}),
    "masked": ("masked", {}),
    "masked, dropout": ("masked", {"dropout": 0.1}),
    "masked, recomputed": ("masked", {"gradient_checkpointing": "blocks"}),
    "masked, recomputed with dropout": ("masked", {"gradient_checkpointing": "blocks", "dropout": 0.1}),
    "span_corruption": ("span_corruption", {}),
    "prefix": ("prefix", {}),
    "replaced_token": ("replaced_token", {}),
    "ragged": ({"name": "text_to_text", "unsupervised": 0.0}, {}),
    "rows of several lengths": ({"name": "denoisers", "table": "ul2"}, {}),
}


class EagerBlocks(Callback):
    """Counts blocks that ran in Python after the first step: a compiled one does not."""

    def __init__(self) -> None:
        self.calls = 0
        forward, counter = Block.forward, self

        def counted(block: Block, *args: Any, **kwargs: Any) -> Any:
            if not torch.compiler.is_compiling():
                counter.calls += 1
            return forward(block, *args, **kwargs)

        self.forward = forward
        Block.forward = counted  # type: ignore[method-assign]  # before it is compiled, or it would be compiled anew

    def on_begin(self, trainer: Any) -> None:
        self.calls = 0

    def close(self) -> None:
        Block.forward = self.forward  # type: ignore[method-assign]


@item(SECTION, seconds=300, cases=CASES)
def no_block_runs_eagerly(device: str, case: str) -> str:
    objective, training = CASES[case]
    data = store(pairs=60)
    common = {"micro_batch_tokens": 1024, "budget_steps": STEPS, **training}
    values = tables(device, data, objective, **common)
    half = {"dtype": "bf16"} if device == "cuda" else {}
    eager = losses(train(tables(device, data, objective, **common, **half)))
    counter = EagerBlocks()
    values["training"] |= {"compile": "on", **half}
    found = losses(train(values, callbacks=[counter]))
    error = assert_near(found, eager, 2e-2 if half else 1e-4, "losses")
    if device == "cuda":  # elsewhere attention has no segment starts, whose number varies
        assert not counter.calls, f"{counter.calls} blocks ran uncompiled in {STEPS} steps"
    return f"relative error of the losses {error:.1e}, {counter.calls} blocks uncompiled"
