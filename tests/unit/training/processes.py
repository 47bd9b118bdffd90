"""Runs trainings in several processes of this machine: `together(jobs, processes)`; as a module, one of them.

A job is {"recipe": …, "out": directory, "resume": whether, "stop_at": step after which SIGTERM comes to the last
process, "poison": step before which the last process's weights become NaN}.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def together(jobs: list[dict], processes: int, machine: int = 0, timeout: float = 240) -> list[list[str]]:
    """What became of each job, as every process saw it.

    Args:
        machine: processes on a machine, as far as they are told; 0: all.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = machine or processes
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(here)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.training.processes", json.dumps(jobs)],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank % here)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        ended = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    for process, (_, errors) in zip(started, ended, strict=True):
        assert process.returncode == 0, errors[-4000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


def main() -> None:
    import torch

    from pretextlm.training.world import joined

    torch.set_num_threads(1)
    with joined(120):
        print(json.dumps([outcome(job) for job in json.loads(sys.argv[1])]))


def outcome(job: dict) -> str:
    """ "done", "stopped", or the message of the error."""
    import torch

    from pretextlm.errors import UserError
    from pretextlm.training import trainer
    from pretextlm.training.recipe import Recipe
    from pretextlm.training.signals import Stopped

    last = os.environ["RANK"] == str(int(os.environ["WORLD_SIZE"]) - 1)
    step = trainer.Trainer._step

    def disturbed(self, *step_of):
        if last and self.position.step + 1 == job.get("poison"):
            with torch.no_grad():
                next(self.model.parameters()).mul_(float("nan"))
        step(self, *step_of)
        if last and self.position.step == job.get("stop_at"):
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.Trainer._step = disturbed
    try:
        trainer.pretrain(Recipe.load(job["recipe"]), Path(job["out"]), resume=job.get("resume", False))
    except Stopped:
        return "stopped"
    except UserError as error:
        return error.message
    finally:
        trainer.Trainer._step = step
    return "done"


if __name__ == "__main__":
    main()
