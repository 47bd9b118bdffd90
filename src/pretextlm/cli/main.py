"""`pretextlm`: the commands and the handling of errors. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import ModuleType
from typing import Annotated, Any, NoReturn

import typer

from pretextlm import __version__
from pretextlm.cli.shared.console import echo, open_streams
from pretextlm.cli.shared.failures import report
from pretextlm.errors import DuplicateUserError, UserError
from pretextlm.registry import Registry

OTHERS_WAIT_SECONDS = 3.0
"""Seconds that other processes wait for the first: they mostly meet the same error, and only the first reports it."""

SIGNALLED = range(129, 193)
"""Exit codes of commands that a signal stopped."""

app = typer.Typer(
    name="pretextlm",
    help="Pre-train, evaluate and compare language models under every pre-training objective on one Transformer.\n\n"
    'Start with `pretextlm quickstart`. See what an objective does: `pretextlm show masked "A sentence."`.\n'
    "What this machine can do: `pretextlm doctor`; what a training will take: `pretextlm pretrain RECIPE --dry-run`.\n"
    "Then, on your own text: `data prepare` → `pretrain` or `compare` → `evaluate`, `fill`, `generate` → `report`;\n"
    "for a task of your own `finetune` → `predict`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        echo(f"pretextlm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def _prose(text: str) -> str:
    """A docstring for the terminal to wrap: paragraphs on one line each; indented ones, as examples, stay.

    A table's name in brackets is none of rich's tags.
    """
    paragraphs = re.sub(r"\[(?=[a-z])", r"\\[", inspect.cleandoc(text)).split("\n\n")
    return "\n\n".join(one if one.startswith(" ") else one.replace("\n", " ") for one in paragraphs)


class CommandRegistry(Registry[Callable[..., Any] | typer.Typer]):
    """A command is a file of this package with a function of the file's name ("import_" for the command "import")."""

    def name_of(self, module: str) -> str:
        return module.rstrip("_")

    def find(self, module: ModuleType, name: str) -> Callable[..., Any] | typer.Typer:
        found: Callable[..., Any] | typer.Typer = getattr(module, module.__name__.rpartition(".")[2])
        return found

    def check(self, entry: object) -> Callable[..., Any] | typer.Typer:
        if not callable(entry):
            raise UserError(f"{entry!r} is no function and no typer.Typer.")
        return entry


COMMANDS = CommandRegistry("command", "pretextlm.cli", "pretextlm.commands")


def _add(name: str) -> None:
    """Adds a command to the application; one of another package that is broken says so when it is called."""
    try:
        command = COMMANDS[name]
    except UserError as error:
        broken = error

        def command(_: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
            raise broken

        command.__doc__ = error.message
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name, help=_prose(command.__doc__ or ""))(command)


for _name in COMMANDS:
    _add(_name)


def main() -> None:
    """Run a command. Exit codes: 0 success, 2 invalid input, 1 internal error, 128 + its number after a signal."""
    # Read by the OpenMP runtime as torch is loaded. Threads that spin while they wait make a step several times slower
    # as soon as anything else runs on the machine; threads that sleep cost nothing that could be measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    open_streams()
    try:
        check_arguments(sys.argv[1:])
        code = app(standalone_mode=False)  # click's own errors, too, are reported below
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # click's exit code for it is 1
            _leave_unread()
        trackers = sys.modules.get("pretextlm.training.trackers")
        if left.code in SIGNALLED or (trackers is not None and trackers.hanging()):
            _leave(left.code if isinstance(left.code, int) else 0)
        raise
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write("stopped\n")
        sys.exit(130)
    except BrokenPipeError:
        _leave_unread()
    except Exception as error:
        if isinstance(error, DuplicateUserError):
            time.sleep(OTHERS_WAIT_SECONDS)
        _leave(report(error))


def _leave_unread() -> NoReturn:
    """Exit with success where nobody reads the output any more, as in `pretextlm … | head`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises UserError for bytes that are not UTF-8, which Python passes on as halves of characters."""
    for argument in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(f"The argument {argument[:200]!r} is not UTF-8.", "Rename the file, or write it in UTF-8.")


def _leave(code: int) -> NoReturn:
    """Exit without waiting for threads: one may be blocked on a disk or network."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
