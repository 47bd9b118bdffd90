"""What the command line says when a command fails, and with which exit code.

Every failure that comes from input or from the machine ends as a `UserError`: exit code 2. What is left is a fault of
the program: one line names it (exit code 1). PRETEXTLM_DEBUG=1 shows the traceback, also of an error of
the machine; a `UserError` that was raised as such needs none.
"""

from __future__ import annotations

import errno
import os
import traceback

import typer

from pretextlm.cli.shared.console import stderr
from pretextlm.errors import UserError
from pretextlm.memory import is_out_of_memory, out_of_memory

DEBUG = "PRETEXTLM_DEBUG"
"""Environment variable: show tracebacks."""
ISSUES = "https://github.com/pretextlm/pretextlm/issues"
MOST_CHARACTERS = 2000

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""The exception for wrong options and arguments, of the click that typer uses, which some versions bring along."""

MEMORY = "Make the batch (training.micro_batch_tokens), data.length or the model smaller."

REMEDIES = {
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.ENOENT: "Check the path.",
    errno.ENOTDIR: "A part of the path is a file: give another place.",
    errno.EISDIR: "Give the path of a file.",
    errno.EEXIST: "Give another place.",
    errno.EACCES: "Give a place that you may read and write.",
    errno.EPERM: "Give a place that you may read and write.",
    errno.EROFS: "Give a place that can be written to.",
    errno.ENOSPC: "Make room on the disk, or give another place.",
    errno.EDQUOT: "Make room in your quota, or give another place.",
    errno.ELOOP: "A link leads back to itself: remove it.",
    errno.EMFILE: "Allow more open files: ulimit -n",
}


def as_user_error(error: BaseException) -> UserError | None:
    """Returns the fault of the input or the machine that an exception stands for; None for one of the program."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, UsageError):
        return _of_usage(error)
    if isinstance(error, OSError) and error.errno is not None:
        place = f"{error.filename}: " if error.filename is not None else ""
        return UserError(f"{place}{error.strerror}.", REMEDIES.get(error.errno, "Check the file and its file system."))
    if is_out_of_memory(error):
        return out_of_memory(error)
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        where = error.object[max(0, error.start - 20) : error.end]
        return UserError(f"{where!r} is not valid UTF-8.", "Write it in UTF-8.")
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        what = str(error).rpartition("DefaultCPUAllocator: ")[2].partition(". Error code")[0]
        return UserError(f"Out of memory: {what or 'it could not be allocated'}.", MEMORY)
    if isinstance(error, ValueError) and "null byte" in str(error):
        return UserError("A path holds a NUL character, which no path can.", "Give the path of a file.")
    if isinstance(error, ValueError) and "integer string conversion" in str(error):
        return UserError("A number has thousands of digits.", "Give a smaller number.")
    return None


def _of_usage(error: Exception) -> UserError:
    context = getattr(error, "ctx", None)
    hint = f"{context.get_usage()}. All options: {context.command_path} --help" if context else ""
    return UserError(error.format_message(), " ".join(hint.split()))  # type: ignore[attr-defined]


def report(error: BaseException) -> int:
    """Prints what went wrong to stderr.

    Returns:
        The exit code.
    """
    known = as_user_error(error)
    if os.environ.get(DEBUG) and not isinstance(error, UserError | UsageError):
        traceback.print_exception(error)
    if known is not None:
        if known.message:  # empty where click has printed the help instead
            _print(known.message, known.hint)
        return 2
    place = traceback.extract_tb(error.__traceback__)[-1]
    _print(
        f"{type(error).__name__}: {error} ({os.path.basename(place.filename)}, line {place.lineno})",
        f"This is a fault of pretextlm. {DEBUG}=1 in front of the command shows where it happened: please report it "
        f"with that at {ISSUES}",
        title="internal error: ",
    )
    return 1


def _print(message: str, hint: str, title: str = "error: ") -> None:
    from rich.text import Text

    console = stderr()
    console.print(Text(title, style="bold red") + Text(message[:MOST_CHARACTERS]))
    if hint:
        console.print(Text("hint:  ", style="bold cyan") + Text(hint[:MOST_CHARACTERS]))
