"""Checks and measurements that each run in a process of their own, so that a crash or a hang of one stops no other.

A function becomes an item by `@item(section, …)`; `run_all` runs items, a few at a time, prints a line for each when it
is done and a table at the end, and rewrites a JSON file after each, so that an interrupted call leaves what it found.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PASSED, FAILED, CRASHED, TIMED_OUT, NOT_RUN = "passed", "failed", "crashed", "timed out", "not run"
NEEDS_GPU, LEFT_OUT = "needs a GPU", "left out"
GOOD = (PASSED, NEEDS_GPU, LEFT_OUT)
LAST_CHARACTERS = 1500
"""Of what a process that failed has printed."""


class LeftOut(Exception):
    """Raised by an item that cannot run here for a reason that is no fault, such as a package that is not installed."""


@dataclass(frozen=True)
class Item:
    """One check or measurement.

    Attributes:
        name: "module.function" or "module.function[case]", relative to the package of items.
        section: groups items in the table.
        run: the function; its arguments are the name of a device and, with cases, the case.
        arguments: after the device.
        seconds: after which its process is ended.
        needs_gpu: why it cannot run on a CPU; "" if it can.
        alone: no other item runs at the same time.
    """

    name: str
    section: str
    run: Callable[..., Any]
    arguments: tuple[Any, ...]
    seconds: float
    needs_gpu: str
    alone: bool


@dataclass
class Outcome:
    """What became of an item: `detail` is what it returned, or the reason; `output` the end of a failed one's."""

    name: str
    section: str
    status: str
    seconds: float = 0.0
    detail: Any = ""
    output: str = field(default="", repr=False)


ITEMS: dict[str, Item] = {}
"""All items of the modules imported so far, in their order."""


def item(
    section: str, *, seconds: float = 120.0, needs_gpu: str = "", alone: bool = False, cases: Iterable[Any] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as an item, or as one for each of its cases."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        found = [(f"{name}[{case}]", (case,)) for case in cases] or [(name, ())]
        for each, arguments in found:
            ITEMS[each] = Item(each, section, function, arguments, seconds, needs_gpu, alone)
        return function

    return register


def run_here(one: Item, device: str) -> Outcome:
    """Runs an item in this process."""
    start = time.perf_counter()
    if one.needs_gpu and device == "cpu":
        return Outcome(one.name, one.section, NEEDS_GPU, detail=one.needs_gpu)
    try:
        status, detail, output = PASSED, one.run(device, *one.arguments), ""
    except LeftOut as reason:
        status, detail, output = LEFT_OUT, str(reason), ""
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        status, detail = FAILED, f"{type(error).__name__}: {first}"[:300]
        output = traceback.format_exc()[-LAST_CHARACTERS:]
    return Outcome(one.name, one.section, status, time.perf_counter() - start, "" if detail is None else detail, output)


def run_isolated(one: Item, device: str, seconds: float, modules: Sequence[str] = ()) -> Outcome:
    """Runs an item in a process of its own, for at most so many seconds.

    Args:
        one: the item.
        device: "cpu" or "cuda".
        seconds: after which the process and all that it started are ended.
        modules: whose import registers the item.
    """
    if one.needs_gpu and device == "cpu":
        return Outcome(one.name, one.section, NEEDS_GPU, detail=one.needs_gpu)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory, open(f"{directory}/output", "w+b") as output:
        order = json.dumps({"name": one.name, "device": device, "modules": list(modules), "to": f"{directory}/outcome"})
        command = [sys.executable, "-m", "benchmarks.gpu", order]
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TMPDIR": directory},
        )
        _RUNNING.add(process)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end_group(process)
            _RUNNING.discard(process)
        outcome = Path(directory, "outcome")
        if code == 0 and outcome.exists():
            return Outcome(**json.loads(outcome.read_text(encoding="utf-8")))
        output.seek(0)
        text = output.read().decode(errors="replace")[-LAST_CHARACTERS:]
    took = time.perf_counter() - start
    if code is None:
        return Outcome(one.name, one.section, TIMED_OUT, took, f"after {seconds:.0f} s", text)
    return Outcome(one.name, one.section, CRASHED, took, f"exit code {code}", text)


def run_all(
    items: Sequence[Item], device: str, *, jobs: int, limit: float, to: Path | None, modules: Sequence[str] = ()
) -> list[Outcome]:
    """Runs items, `jobs` at a time, and those that run alone after the others.

    Args:
        items: to run.
        device: "cpu" or "cuda".
        jobs: processes at a time.
        limit: seconds for all of them; those that have not begun by then are not run.
        to: JSON file of the results so far.
        modules: whose import registers the items.
    """
    end = time.monotonic() + limit
    outcomes: dict[str, Outcome] = {}

    def run(one: Item) -> None:
        left = end - time.monotonic()
        if left < 5:
            outcome = Outcome(one.name, one.section, NOT_RUN, detail="no time was left")
        else:
            outcome = run_isolated(one, device, min(one.seconds, left), modules)
        outcomes[one.name] = outcome
        print(f"{outcome.status:12} {outcome.seconds:6.1f} s  {one.name}  {_short(outcome.detail)}", flush=True)
        if outcome.status not in GOOD and outcome.output:
            print("    " + outcome.output.replace("\n", "\n    "), flush=True)
        _write(to, device, [outcomes[other.name] for other in items if other.name in outcomes])

    for group, width in (([i for i in items if not i.alone], jobs), ([i for i in items if i.alone], 1)):
        with ThreadPoolExecutor(width) as pool:
            list(pool.map(run, group))
    return [outcomes[one.name] for one in items]


def show(outcomes: Sequence[Outcome]) -> bool:
    """Prints the table of results; returns whether nothing failed."""
    print()
    for outcome in outcomes:
        print(f"{outcome.section:14} {outcome.name:58} {outcome.status:12} {_short(outcome.detail)}")
    counts = Counter(outcome.status for outcome in outcomes)
    print("\n" + ", ".join(f"{count} {status}" for status, count in counts.items()), flush=True)
    return all(outcome.status in GOOD for outcome in outcomes)


def main(description: str, name: str, modules: Sequence[str], jobs: dict[str, int], limit: float) -> None:
    """The command line of a set of items: exits with 1 if any of them failed, crashed or found no time."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--only", nargs="+", default=[""], help="items whose name contains one of these")
    parser.add_argument("--jobs", type=int, help="processes at a time")
    parser.add_argument("--limit", type=float, default=limit, help="seconds for everything")
    parser.add_argument("--json", type=Path, default=Path(os.environ.get("OUT", "build/gpu"), f"{name}.json"))
    parser.add_argument("--list", action="store_true", help="print the names, and run nothing")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end_all)
    load(modules)
    chosen = [one for one in ITEMS.values() if any(text in one.name for text in options.only)]
    if options.list:
        for one in chosen:
            print(f"{one.section:14} {one.name:58} {one.needs_gpu and f'needs a GPU: {one.needs_gpu}'}".rstrip())
        return
    jobs_now = options.jobs or jobs[options.device]
    outcomes = run_all(chosen, options.device, jobs=jobs_now, limit=options.limit, to=options.json, modules=modules)
    raise SystemExit(0 if show(outcomes) and outcomes else 1)


def run_ordered(order: dict[str, Any]) -> None:
    """What the process of an item does: runs it and writes its outcome to a file."""
    load(order["modules"])
    outcome = run_here(ITEMS[order["name"]], order["device"])
    Path(order["to"]).write_text(json.dumps(asdict(outcome), default=str), encoding="utf-8")


def load(modules: Iterable[str]) -> None:
    """Imports modules, which registers their items."""
    for module in modules:
        importlib.import_module(module)


def _write(to: Path | None, device: str, outcomes: Sequence[Outcome]) -> None:
    if to is None:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    values = {"device": device, "host": platform.platform(), "results": [asdict(outcome) for outcome in outcomes]}
    to.with_suffix(".part").write_text(json.dumps(values, indent=1, default=str), encoding="utf-8")
    to.with_suffix(".part").replace(to)


def _short(detail: Any) -> str:
    text = detail if isinstance(detail, str) else json.dumps(detail, default=str)
    return text if len(text) <= 300 else text[:297] + "…"


_RUNNING: set[subprocess.Popen[bytes]] = set()


def _end_all(number: int, _: Any) -> None:
    """Ends the processes of all items, which are no children of this one's group, and this one."""
    for process in list(_RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    os._exit(128 + number)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and all that it has started and left running."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
