"""What all commands share: results to stdout, everything else to stderr, and nothing in them that a terminal obeys.

Names, fields, prompts and what a model writes come from anywhere. A terminal would obey the control characters in them:
move the cursor, change its title, write to the clipboard, show text in another order. `printable` spells them out, for
every terminal, pipe and file alike; the exact text is in `--json`, where they are escaped as JSON has it. Square
brackets are never markup.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from pretextlm.printable import COMMANDING, printable

if TYPE_CHECKING:
    from rich.console import Console


def open_streams() -> None:
    """Makes stdout and stderr take every character: one that their encoding lacks is spelled out, as \\u2192.

    A stream that is closed becomes /dev/null, and stderr loses what it cannot take.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as the process runs
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, BestEffortStream):
        sys.stderr = cast("TextIO", BestEffortStream(sys.stderr))


class BestEffortStream:
    """A stream for people, whose faults end nothing: a pipe that was closed (`2>&1 | head`), a log on a full disk.

    Args:
        stream: takes the text while it can.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BrokenPipeError:  # nobody will ever read it: libraries in other languages may write without a fault, too
            with suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
        except (OSError, ValueError):  # ValueError: it is closed
            pass


def stdout() -> Console:
    """Returns the console that results are printed to."""
    return _console(stderr=False)


def stderr() -> Console:
    """Returns the console that progress, notes and errors are printed to."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        """Spells out control characters in all that is printed, but not those by which rich itself moves the cursor."""

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or not COMMANDING.search(segment.text):
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            """Leaves it to whoever called, where rich would exit with code 1."""
            raise

    return PrintableConsole(stderr=stderr, markup=False, emoji=False, highlight=False)


def echo(text: str = "", *, end: str = "\n") -> None:
    """Writes text to stdout at once."""
    sys.stdout.write(printable(text) + end)
    sys.stdout.flush()


def json_line(value: Any, indent: int | None = None) -> str:
    """Returns a value as JSON with what a terminal would obey, or stdout's encoding may lack, in JSON's own escapes."""
    is_utf8 = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not is_utf8, indent=indent)
    return COMMANDING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_json(value: Any, indent: int | None = 1) -> None:
    """Prints one JSON value on stdout, and nothing else there."""
    sys.stdout.write(json_line(value, indent) + "\n")


def echo_comparison(measured: Mapping[str, Any]) -> None:
    """Prints the loss, or the scores of a task, before and after compression, or why they are not known."""
    if "scores" in measured:
        for name, score in measured["scores"].items():
            echo(f"{name}: {_metric(score['before'])} → {_metric(score['after'])} (standard errors, same records)")
    elif measured["loss"] is None:
        echo(f"loss: not measured, {measured['not_measured']}")
    else:
        loss = measured["loss"]
        before, after, change = (_metric(loss[name], "+" if name == "change" else "") for name in loss)
        echo(f"loss: {before} → {after} nats per target; change {change} (standard errors, same rows)")


def _metric(metric: Mapping[str, Any], sign: str = "") -> str:
    error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
    return f"{metric['value']:{sign}.4f}{error}"
