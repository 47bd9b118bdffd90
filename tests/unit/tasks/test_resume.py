"""A fine-tuning that was stopped goes on bit for bit, whatever part of the model it trains."""

from __future__ import annotations

import os
import signal

import pytest
import torch
from tests.builders import sentences

from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain
from pretextlm.training.progress import Silent
from pretextlm.training.signals import Stopped

pytestmark = pytest.mark.slow

RECORDS = [{"text": text, "label": i % 2} for i, text in enumerate(sentences(24))]
WAYS = {
    "whole": {},
    "head": {"freeze": ["trunk"]},
    "thawing": {"thaw": 0.8, "layer_decay": 0.7},
    "adapters": {"lora": {"rank": 2}},
}


class StopAt(Silent):
    """Sends the process a signal after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, share, values):
        if values["step"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_ends_with_the_bits_of_one_that_was_not(recipe, written, tmp_path, way):
    if way == "adapters":
        pytest.importorskip("peft", reason="adapters are made by peft")
    file = written(RECORDS)
    training = {"budget_steps": 8, "validations": 4, "keep_best": True, "learning_rate": 1e-2}
    chosen = recipe({"name": "text_classification"}, file, tuning=WAYS[way], **training)
    whole = pretrain(chosen, tmp_path / "whole")
    for step in (1, 5):
        with pytest.raises(Stopped):
            pretrain(chosen, tmp_path / "cut", resume=True, progress=StopAt(step))
    cut = pretrain(chosen, tmp_path / "cut", resume=True)
    ones, others = (newest(run.checkpoints).model() for run in (whole, cut))
    assert all(torch.equal(ones[name], others[name]) for name in ones)
    lines = [[{k: line[k] for k in ("kind", "step", "loss")} for line in run.metrics()] for run in (whole, cut)]
    assert lines[0] == lines[1]
