"""Trainings that are killed, stopped or left alone by another process: a tiny model, a checkpoint after every step.

This module imports torch once and forks a child for each attempt, so that hundreds fit into minutes. As a program it
reads {"experiment": …, "options": {…}} lines and answers each with one line; experiments are the functions of
tests/faults/{kills,signals,starts}.py. It is a process of its own because a process with threads must not be forked.
"""

import hashlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
FULL = os.environ.get("PRETEXTLM_FAULTS") == "full"
"""Whether to repeat as often as `make faults` does, or as often as fits into the ordinary tests."""
RANDOM_COLUMNS = ("seconds", "tokens_per_second", "data_wait", "mfu", "memory", "peak_memory")


class Harness:
    """The program, for as long as a `with` block lasts."""

    def __enter__(self) -> "Harness":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.harness"],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)

    def measure(self, experiment: str, **options: object) -> dict:
        """What an experiment found. Fails with what went wrong in it."""
        self._process.stdin.write(json.dumps({"experiment": experiment, "options": options}) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        assert "failed" not in found, found["failed"]
        print(experiment, found)
        return found


def values(store: str, seed: int = 0, steps: int = 50, hidden_size: int = 128, **training: object) -> dict:
    """A recipe: little work in a step, two micro-batches, a checkpoint as soon as the one before is written."""
    return {
        "seed": seed,
        "data": {"store": store, "length": 64},
        "objective": {"name": "causal"},
        "model": {"hidden_size": hidden_size, "num_hidden_layers": 2, "num_attention_heads": 2},
        "training": {
            "budget_steps": steps,
            "batch_tokens": 128,
            "micro_batch_tokens": 64,
            "dtype": "fp32",
            "device": "cpu",
            "compile": "off",
            "threads": 1,
            "log_every": 2,
            "validations": 3,
            "validation_rows": 8,
            "checkpoint_seconds": 1e-9,
            **training,
        },
    }


class Child:
    """One forked attempt.

    Attributes: pid; began: when it told that it was ready, by `time.monotonic`; code: its exit code, once it ended;
        -9 for a kill.
    """

    def __init__(self, work: Callable[[Callable[[str], None]], None], log: Path) -> None:
        self.log, self.code, self.said = log, None, ""
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._reader)
            _be_child(work, writer, log)
        os.close(writer)

    def wait_for(self, word: str, timeout: float = 400) -> bool:
        """Until the child has said a word; False when it ended without."""
        until = time.monotonic() + timeout
        while word not in self.said.split():
            ready, _, _ = select.select([self._reader], [], [], max(0, until - time.monotonic()))
            assert ready, f"nothing heard of {word!r}"
            heard = os.read(self._reader, 4096)
            if not heard:
                return False
            self.said += heard.decode()
        return True

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """Its exit code, or None while it lives."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def wait(self, timeout: float = 400) -> int:
        """Its exit code. A child that does not end is killed, and the test fails."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it hangs: {self.log.read_text()[-3000:]}")
            time.sleep(0.001)
        return self.code

    def __del__(self) -> None:
        os.close(self._reader)


def _be_child(work: Callable[[Callable[[str], None]], None], writer: int, log: Path) -> None:
    """Do the work and end as the command line does: 0, 2 with a message, 128 + signal; 1 with a traceback."""
    from pretextlm.errors import UserError
    from pretextlm.training.signals import Stopped

    code = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        work(lambda word: os.write(writer, f"{word} ".encode()))
        code = 0
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        code = 2
    except Stopped as stopped:
        code = stopped.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def training(recipe: dict, out: Path, place: dict[str, str] | None = None) -> Callable[[Callable[[str], None]], None]:
    """The work of a child that begins a run or goes on with it. It says "joined" and then "training".

    Args:
        place: among several processes, as environment variables.
    """

    def work(say: Callable[[str], None]) -> None:
        from pretextlm.training import pretrain, trainer
        from pretextlm.training.recipe import Recipe

        os.environ.update(place or {})
        process_group, train = pretrain.process_group, trainer.Trainer.train

        @contextmanager
        def telling(*of):
            with process_group(*of) as distributed:
                say("joined")
                yield distributed

        def then(self, *of):
            say("training")
            train(self, *of)

        pretrain.process_group, trainer.Trainer.train = telling, then
        pretrain.pretrain(Recipe.load(recipe), out, resume=True)

    return work


def places(processes: int) -> list[dict[str, str]]:
    """The environments of so many processes of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def story(out: Path) -> tuple[str, str]:
    """(SHA-256 of the final weights, of what metrics.jsonl says apart from the clock): equal for equal runs."""
    from pretextlm.training.checkpoint import newest
    from pretextlm.training.run_directory import Run

    run, digest = Run.open(out), hashlib.sha256()
    found = newest(run.checkpoints)
    for name, tensor in sorted(found.model().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    lines = [{k: v for k, v in line.items() if k not in RANDOM_COLUMNS} for line in run.metrics()]
    text = "\n".join(json.dumps(line, sort_keys=True) for line in lines)
    return f"{found.step} {digest.hexdigest()}", text


def litter(out: Path) -> list[Path]:
    """What unfinished writers left."""
    return sorted((out / "checkpoints").glob(".*")) + sorted(out.glob(".*.partial"))


def main() -> None:
    import torch
    import torch._dynamo  # whatever a child would import is imported before the first fork
    import torch.distributed.checkpoint
    import torch.distributed.fsdp
    import torch.distributed.tensor

    import pretextlm.training.trainer
    import pretextlm.training.validation  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        wanted = json.loads(line)
        module, _, function = wanted["experiment"].partition(".")
        try:
            experiment = getattr(importlib.import_module(f"tests.faults.{module}"), function)
            found = experiment(**wanted["options"])
        except Exception:
            found = {"failed": traceback.format_exc()[-6000:]}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
