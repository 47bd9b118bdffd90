"""torchrun starts the processes of a run again when one is lost, and the run ends as if nothing had happened."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from tests.builders import make_store
from tests.faults.harness import values

from pretextlm.config import write_toml
from pretextlm.training.checkpoint import newest
from pretextlm.training.pretrain import pretrain

STEPS = 60
LAUNCHER = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")


def wait_until(found, process, seconds=120):
    until = time.monotonic() + seconds
    while not found():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_a_lost_process_is_replaced_and_the_run_goes_on(tmp_path):
    store = make_store(tmp_path / "store")
    recipe = values(str(store.path), steps=STEPS, hidden_size=16, log_every=1)
    (tmp_path / "recipe.toml").write_text(write_toml(recipe))
    run = tmp_path / "run"
    command = [sys.executable, *LAUNCHER, "-m", "pretextlm", "pretrain", "recipe.toml", "--out", str(run), "--resume"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: list((run / "checkpoints").glob("step-*[1-9]*")), process)
    os.kill(int(re.match(r"process (\d+)", (run / "run.lock").read_text())[1]), signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    resumed = [int(step) for step in re.findall(r"resumed at step (\d+)", said)]
    assert len(resumed) == 1
    assert 0 < resumed[0] < STEPS
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    alone = newest(pretrain(recipe, tmp_path / "alone").checkpoints).model()
    found = newest(run / "checkpoints").model()
    for name in alone:
        torch.testing.assert_close(found[name], alone[name], rtol=1e-3, atol=1e-4)
