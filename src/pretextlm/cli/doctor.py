"""`pretextlm doctor`: the hardware and software of this machine, and what training will use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pretextlm.cli.shared.console import print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Mapping


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show processor, GPUs, memory, compiler and optional packages of this machine, and what training will use.

    Nothing is written. For the memory and time of one recipe: pretextlm pretrain RECIPE --dry-run.
    """
    from pretextlm.training.distributed import process_group
    from pretextlm.training.machine_report import default_settings, describe_machine

    with process_group(60.0) as distributed:
        found = {"machine": describe_machine(distributed), "training": default_settings(distributed)}
        if not distributed.is_main:
            return
        if as_json:
            print_json(found)
        else:
            _show(found["machine"], found["training"])


def _show(machine: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from pretextlm.report.format import si

    console = stdout()
    for title, rows in (("This machine", _machine(machine)), ("Training will use", _training(training))):
        table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(name, Text(text))
        console.print(Text(title, style="bold cyan"))
        console.print(table)
        console.print()
    free = machine["here"]["free_bytes"]
    if not machine["here"]["writable"]:
        console.print(
            f"You may not write to {machine['here']['path']}: give runs another place with --out.", markup=False
        )
    elif free < 1e9:
        console.print(f"Only {si(free, 'B')} of disk are free here.")


def _machine(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    from pretextlm.report.format import si

    gpus = [
        f"{gpu['name']}, {si(gpu['memory_bytes'], 'B')} ({si(gpu['free_memory_bytes'], 'B')} free), "
        f"compute capability {gpu['compute_capability']}"
        for gpu in found["gpus"]
    ]
    processes = found["processes"]
    cache = found["compile_cache"]
    unknown = "unknown"
    rows = [
        ("processor", f"{found['processor']}; {found['cores']} for this process"),
        ("instructions", ", ".join(found["instructions"]) or "none that matter"),
        ("memory", f"{_size(found['memory_bytes'])}, {_size(found['free_memory_bytes'])} free"),
        ("GPUs", "; ".join(gpus) or "none that torch sees"),
        (
            "versions",
            f"pretextlm {found['pretextlm']}, Python {found['python']}, torch {found['torch']}, "
            f"CUDA {found['cuda'] or 'not in this torch'}",
        ),
        ("system", found["platform"] or unknown),
        ("compiler", found["compiler"] or "none: install g++, and training gets faster"),
        ("compiled code", f"{cache['path']}{'' if cache['writable'] else ' (not writable: compiled anew each time)'}"),
        (
            "disk here",
            f"{si(found['here']['free_bytes'], 'B')} free{'' if found['here']['writable'] else ', not writable'}",
        ),
        ("energy", found["energy"]),
        (
            "processes",
            f"{processes['size']} started together by torchrun, {processes['on_this_machine']} of them here"
            if processes["size"] > 1
            else "this one alone (several: torchrun, see docs/scaling.md)",
        ),
    ]
    for name, extra in found["extras"].items():
        versions = extra["packages"]
        missing = [package for package, version in versions.items() if version is None]
        there = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
        lacks = f"{', '.join(missing)} missing: {extra['install']}" if missing else ""
        rows.append((f"extra: {name}", "; ".join(part for part in (there, lacks) if part)))
    return rows


def _size(value: int | None) -> str:
    from pretextlm.report.format import si

    return "unknown" if value is None else si(value, "B")


def _training(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    from pretextlm.report.format import si

    attention = ", ".join(f"{path} ({kind})" for kind, path in found["attention"].items())
    return [
        ("device", found["device"]),
        ("activations", found["dtype"]),
        ("threads", str(found["threads"])),
        ("compiler", "blocks are compiled in runs of a minute or more" if found["compile"] else found["why"][0]),
        ("attention", f"{attention}, rows of {found['length']} tokens"),
        ("optimizer", found["optimizer"]),
        ("parallel", found["parallel"]),
        ("peak", f"{si(found['peak_flops_per_second'], 'FLOP/s')}, {found['peak_source']}"),
    ]
