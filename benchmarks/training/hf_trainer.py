"""transformers' own Trainer as a side: at its defaults, and at the best settings that its documents name for a CPU.

It needs the extra `bench` (accelerate). Batches are made beforehand; its loader stacks their rows in the process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.training.peers import Format, build
from benchmarks.training.setting import Setting
from benchmarks.training.turns import Turns
from torch import Tensor
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments

BEST: dict[str, Any] = {"bf16": True, "torch_compile": True, "optim": "adamw_torch_fused"}
"""With the attention of torch (sdpa), which is its models' default."""


class Rows(IterableDataset[dict[str, Tensor]]):
    """The rows of all batches, again and again."""

    def __init__(self, batches: Sequence[Sequence[dict[str, Tensor]]]) -> None:
        self.rows = [
            {name: column[row] for name, column in batch.items()}
            for step in batches
            for batch in step
            for row in range(len(batch["input_ids"]))
        ]

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            yield from self.rows


class Gate(TrainerCallback):
    """Lets the Trainer run only in its turns."""

    def __init__(self, turns: Turns, tokens: int) -> None:
        self.turns, self.tokens = turns, tokens

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.turns.step(self.tokens)


def train(
    setting: Setting,
    vocabulary: int,
    batches: Sequence[Sequence[dict[str, Tensor]]],
    begin: Callable[[int], Turns],
    tokens: int,
    best: bool,
) -> None:
    """Train until the turns end.

    Args:
        batches: micro-batches of some steps.
        begin: opens the turns; takes the number of weights.
        tokens: of a step.
        best: with the settings of `BEST` instead of the defaults.
    """
    model = build(setting, vocabulary, Format())
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory,
            max_steps=10**6,
            per_device_train_batch_size=len(batches[0][0]["input_ids"]),
            gradient_accumulation_steps=len(batches[0]),
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **(BEST if best else {}),
        )
        turns = begin(sum(p.numel() for p in model.parameters()))
        Trainer(model, arguments, train_dataset=Rows(batches), callbacks=[Gate(turns, tokens)]).train()
