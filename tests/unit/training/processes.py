"""Runs trainings in several processes of this machine: `with Processes() as them: them.run(jobs, 2)`.

As a module it is the parent of them all: it imports torch once and forks them, so that a group costs next to nothing.
A job is {"recipe": …, "out": directory, …}, with `kind`:

    "train", "resume"    what `pretrain` does; "stop_at": step after which SIGTERM comes to the last process, "poison":
                         step before which the last process's weights become NaN, "memory": bytes that it says it uses
    "gradients"          of the first step, written to `out`; and which rows each of the first steps reads
"""

import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
STEPS = 3
"""Of which "gradients" says what they read."""


class Processes:
    """The parent, for as long as a `with` block lasts."""

    def __enter__(self) -> "Processes":
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.training.processes"],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._parent.stdin.close()
        try:
            self._parent.wait(10)
        finally:
            self._parent.kill()

    def run(self, jobs: list[dict], processes: int, machine: int = 0) -> list[list[Any]]:
        """What became of each job, as every process saw it.

        Args:
            machine: processes on a machine, as far as they are told; 0: all.
        """
        self._parent.stdin.write(json.dumps([jobs, processes, machine or processes]) + "\n")
        self._parent.stdin.flush()
        found = json.loads(self._parent.stdout.readline())
        for one in found:
            assert "failed" not in one, one
        return [one["outcomes"] for one in found]


def main() -> None:
    import torch
    import torch._dynamo  # whatever a child would import is imported before the first fork
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor

    import pretextlm.training.trainer  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(_group(*json.loads(line))), flush=True)


def _group(jobs: list[dict], processes: int, machine: int) -> list[dict]:
    """Fork so many processes, and gather what they say."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(machine)}
    readers = []
    for rank in range(processes):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank % machine)}
            _be_child(jobs, writer)
        os.close(writer)
        readers.append(reader)
    said = [os.fdopen(reader).read() for reader in readers]
    for _ in readers:
        os.wait()
    return [json.loads(text or '{"failed": "it ended without a word"}') for text in said]


def _be_child(jobs: list[dict], writer: int) -> None:
    from pretextlm.training.distributed import process_group

    os.dup2(2, 1)
    try:
        with process_group(120):
            found: dict = {"outcomes": [outcome(job) for job in jobs]}
    except BaseException:
        found = {"failed": traceback.format_exc()[-4000:]}
    os.write(writer, json.dumps(found).encode())
    os._exit(0)


def outcome(job: dict) -> Any:
    """ "done", "stopped", or the message of the error; of "gradients" (loss, rows of each step)."""
    from pretextlm.errors import UserError
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.signals import Stopped

    recipe, out = Recipe.load(job["recipe"]), Path(job["out"])
    try:
        if job["kind"] == "gradients":
            return _gradients(recipe, out)
        _train(recipe, out, job)
    except Stopped:
        return "stopped"
    except UserError as error:
        return error.message
    return "done"


def _train(recipe: Any, out: Path, job: dict) -> None:
    import torch

    from pretextlm.training import trainer
    from pretextlm.training.callbacks import metrics
    from pretextlm.training.pretrain import pretrain

    last = int(os.environ.get("RANK", 0)) == int(os.environ.get("WORLD_SIZE", 1)) - 1
    step, peak_memory = trainer.Trainer.step, metrics.peak_memory

    def disturbed(self, *step_of):
        if last and self.state.step + 1 == job.get("poison"):
            with torch.no_grad():
                next(self.model.parameters()).mul_(float("nan"))
        done = step(self, *step_of)
        if last and self.state.step == job.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)
        return done

    trainer.Trainer.step = disturbed
    if last and "memory" in job:
        metrics.peak_memory = lambda _: job["memory"]
    try:
        pretrain(recipe, out, resume=job["kind"] == "resume")
    finally:
        trainer.Trainer.step, metrics.peak_memory = step, peak_memory


def _gradients(recipe: Any, out: Path) -> tuple[float, list[list[int]]]:
    import torch
    from safetensors.torch import save_file

    from pretextlm.batch import Spare
    from pretextlm.training import trainer
    from pretextlm.training.distributed import process_group
    from pretextlm.training.plan import make_loader
    from pretextlm.training.progress import Silent
    from pretextlm.training.run_directory import Run
    from pretextlm.training.run_setup import set_up
    from pretextlm.training.sharded_checkpoint import is_sharded_tensor

    build = trainer.build_model

    def shaken(*of):
        """Projections that begin at zero would hide faults."""
        model, generator = build(*of), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        return model

    trainer.build_model = shaken
    try:
        with process_group(120) as distributed:
            ready = set_up(recipe, distributed)
            plan, run = ready.plan, Run(out, ready.recipe)
            at_work = trainer.Trainer(run, ready.corpus, plan, ready.runtime, Silent(), distributed)
            loader = make_loader(ready.recipe, ready.corpus, plan.total_rows, distributed)
            steps = [loader.step(number * plan.rows, plan.rows, plan.micro_rows) for number in range(STEPS)]
            losses = at_work.gradients(steps[0])
            named = {name: weight.grad for name, weight in at_work.model.named_parameters() if weight.grad is not None}
            whole = {name: grad.full_tensor() if is_sharded_tensor(grad) else grad for name, grad in named.items()}
            if distributed.is_main:
                out.mkdir(parents=True, exist_ok=True)
                save_file(whole, out / "gradients.safetensors")
            mine = [[int(i) for b in step if not isinstance(b, Spare) for i in b.example_ids] for step in steps]
            at_work.close()
            return sum(losses.values()), mine
    finally:
        trainer.build_model = build


if __name__ == "__main__":
    main()
