"""Commands as a user gives them, each in a process of its own, without importing torch for each.

As a program, this module imports the package once and forks a child for each command: one JSON request a line in, one
answer a line out. It is a process of its own because a process with threads must not be forked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT_SECONDS = 300


class Command:
    """A command that has begun.

    Attributes:
        pid: of its process.
        returncode: its exit code, minus the signal's number after a signal; None until `wait` has returned.
    """

    def __init__(self, parent: CommandLine, pid: int, directory: Path) -> None:
        self._parent, self._directory = parent, directory
        self.pid = pid
        self.returncode: int | None = None

    @property
    def stdout(self) -> str:
        """Printed so far."""
        return (self._directory / "stdout").read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        """Printed so far."""
        return (self._directory / "stderr").read_text(encoding="utf-8")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code, or None while the command runs."""
        if self.returncode is None:
            self.returncode = self._parent.ask(poll=self.pid)
        return self.returncode

    def wait(self, timeout: float = TIMEOUT_SECONDS) -> int:
        """The exit code. Fails if the command takes longer than so many seconds."""
        until = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < until, f"it does not end: {self.stderr[-3000:]}"
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def wait_for(self, text: str, timeout: float = TIMEOUT_SECONDS) -> None:
        """Return once stderr contains a text. Fails if the command ends without it."""
        until = time.monotonic() + timeout
        while text not in self.stderr:
            assert self.poll() is None or text in self.stderr, f"never said {text!r}: {self.stderr[-3000:]}"
            assert time.monotonic() < until, f"never said {text!r}: {self.stderr[-3000:]}"
            time.sleep(0.02)


@dataclass(frozen=True)
class Finished:
    """The exit code and the output of a command that has ended."""

    returncode: int
    stdout: str
    stderr: str


class CommandLine:
    """Runs commands for as long as a `with` block lasts."""

    def __enter__(self) -> CommandLine:
        self._temporary = tempfile.TemporaryDirectory(prefix="commands-")
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_line"],
            cwd=ROOT,
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "100", "PRETEXTLM_DEBUG": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._temporary.cleanup()

    def ask(self, **request: Any) -> Any:
        """The answer of the program to a request."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, *arguments: object, cwd: Path, before: str = "") -> Command:
        """Begin a command.

        Args:
            arguments: of `pretextlm`.
            cwd: its working directory.
            before: Python code that its process runs first.
        """
        self._count += 1
        directory = Path(self._temporary.name) / str(self._count)
        directory.mkdir()
        pid = self.ask(arguments=[str(one) for one in arguments], cwd=str(cwd), before=before, directory=str(directory))
        return Command(self, pid, directory)

    def run(self, *arguments: object, cwd: Path) -> Finished:
        """A command's exit code and output, once it has ended."""
        command = self.start(*arguments, cwd=cwd)
        return Finished(command.wait(), command.stdout, command.stderr)


def main() -> None:
    import torch
    import torch._dynamo  # whatever a command would import is imported before the first fork

    import pretextlm.cli.main
    import pretextlm.evaluation.evaluate
    import pretextlm.training.trainer  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        answer = _exit_code(request["poll"]) if "poll" in request else _fork(request)
        print(json.dumps(answer), flush=True)


def _exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _fork(request: dict[str, Any]) -> int:
    """The process id of a child that runs the command."""
    for name in ("stdout", "stderr"):
        (Path(request["directory"]) / name).touch()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(Path(request["directory"]) / name, os.O_WRONLY), number)
        os.chdir(request["cwd"])
        sys.argv = ["pretextlm", *request["arguments"]]
        exec(request["before"], {})

        from pretextlm.cli.main import main as command

        command()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
