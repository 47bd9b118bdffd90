"""Every objective: losses in fp32 are the CPU's, in bf16 finite and near; how often a step waits for the device."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from benchmarks.gpu.checks.common import TRAINING, assert_near, losses, store, tables, train
from benchmarks.gpu.isolation import item

from pretextlm.training.callbacks.base import Callback, StepMetrics

SECTION = "6 objectives"
CASES: dict[str, dict[str, Any]] = {
    "causal": {},
    "masked": {},
    "masked, words": {"unit": "word", "rate": 0.3, "final_rate": 0.15},
    "prefix": {},
    "prefix, encoder-decoder": {"layout": "encoder_decoder"},
    "span_corruption": {},
    "span_corruption, prefix": {"layout": "prefix"},
    "denoisers": {"table": "ul2"},
    "next_sentence": {},
    "sentence_order": {},
    "word_structure": {},
    "span_boundary": {},
    "replaced_token": {},
    "replaced_token, disentangled": {"sharing": "gradient_disentangled"},
    "denoising": {},
    "masked_sequence": {},
    "mixed_visibility": {},
    "permutation": {},
    "fill_in_middle": {},
    "bimodal_code": {},
    "text_to_text": {"unsupervised": 0.5},
    "distillation": {"inner": {"name": "masked"}},
}
"""Name → options; what follows a comma tells cases of one objective apart."""


def objective(case: str, data: str) -> dict[str, Any]:
    """The table of a case; a distilled model's teacher is made."""
    name = case.partition(",")[0]
    more = {"teacher": str(train(tables("cpu", data, "masked")).directory)} if name == "distillation" else {}
    return {"name": name, **CASES[case], **more}


class Waits(Callback):
    """Counts where a step after the first two waits for the device; torch warns of each such place."""

    def __init__(self) -> None:
        self.steps = 0
        self.places: dict[str, int] = {}

    def before_step(self, trainer: Any) -> None:
        if trainer.state.step >= 2:
            torch.cuda.set_sync_debug_mode("warn")
            self.caught = warnings.catch_warnings(record=True)
            self.list = self.caught.__enter__()
            warnings.simplefilter("always")

    def on_step(self, trainer: Any, metrics: StepMetrics) -> None:
        if metrics.step > 2:
            torch.cuda.set_sync_debug_mode("default")
            self.caught.__exit__(None, None, None)
            self.steps += 1
            for one in self.list:
                if "synchroniz" in str(one.message):
                    where = f"{one.filename.rpartition('/')[2]}:{one.lineno}"
                    self.places[where] = self.places.get(where, 0) + 1


@item(SECTION, seconds=240, cases=CASES)
def losses_are_the_cpu_s(device: str, case: str) -> str:
    data = store(pairs=60)
    table = objective(case, data)
    found, wanted = (losses(train(tables(where, data, table))) for where in (device, "cpu"))
    assert len(wanted) == TRAINING["budget_steps"], f"{len(wanted)} steps"
    return f"relative error {assert_near(found, wanted, 1e-3, 'losses'):.1e}"


@item(SECTION, seconds=240, cases=CASES)
def losses_in_half_precision_are_near(device: str, case: str) -> dict[str, Any]:
    data = store(pairs=60)
    table = objective(case, data)
    waits = [Waits()] if device == "cuda" else []
    found = losses(train(tables(device, data, table, dtype="bf16", budget_steps=5), callbacks=waits))
    wanted = losses(train(tables("cpu", data, table, budget_steps=5)))
    error = assert_near(found, wanted, 5e-3, "losses")
    found_waits = waits[0].places if waits else "not counted"
    return {"relative error": round(error, 5), "waits of 3 steps": found_waits}
