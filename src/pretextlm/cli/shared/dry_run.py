"""What `pretextlm pretrain RECIPE --dry-run` prints: one table of a rehearsal's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pretextlm.cli.shared.console import stdout
from pretextlm.report.format import count, duration, plain, si


def show(found: Mapping[str, Any]) -> None:
    """To stdout."""
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    console.print(Text.assemble((found["recipe"], "bold"), ": what training by this recipe takes here"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows(found):
        table.add_row(name, Text(text))
    console.print(table)


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, how much) for people."""
    memory, step, run, disk = found["memory"], found["step"], found["run"], found["disk"]
    kind = found["architecture"].replace("_", "-")
    yield "parameters", f"{found['parameters']:,} ({kind}, {found['objective']})"
    yield "device", _device(found["device"])
    yield "memory", _memory(memory)
    passes = f"{step['passes_of_a_process']} pass{'es' * (step['passes_of_a_process'] > 1)}"
    second = f" and {step['target_length']}" if step["target_length"] else ""
    yield (
        "a step",
        f"{count(step['rows'], 'row')} of {step['length']:,}{second} tokens, {step['tokens']:,.0f} tokens of text, "
        f"{si(step['flops'], 'FLOPs')}; {passes} of at most {count(step['rows_of_a_pass'], 'row')}",
    )
    if run["steps"] is None:
        yield "the run", f"{plain(run['budget']['size'])} {run['budget']['kind']}; how far that goes was not measured"
    else:
        reached = "will reach about " if run["known"] == "measured" else ""
        yield (
            "the run",
            f"{reached}{count(run['steps'], 'step')}, {si(run['tokens'])} tokens, {plain(run['epochs'])} epochs over "
            f"the store's {si(run['tokens_of_the_store'])} tokens, {si(run['flops'], 'FLOPs')}",
        )
    yield from _speed(found)
    writable = "" if disk["writable"] else "; you may not write there"
    yield (
        "disk",
        f"{si(disk['checkpoint_bytes'], 'B')} a checkpoint, {si(disk['needed_bytes'], 'B')} for {disk['kept']} that "
        f"are kept and one being written; {si(disk['free_bytes'], 'B')} free at {disk['path']}{writable}",
    )
    yield "afterwards", found["export"]


def _device(device: Mapping[str, Any]) -> str:
    processes = f"{device['processes']} processes ({device['parallel']}), " if device["processes"] > 1 else ""
    compiled = "blocks compiled" if device["compile"] else "not compiled"
    return f"{device['name']}; {processes}{device['dtype']}, {count(device['threads'], 'thread')}, {compiled}"


def _memory(memory: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{part} {si(memory[part], 'B')}" for part in ("weights", "gradients", "optimizer"))
    free = "" if memory["free"] is None else f"; {si(memory['free'], 'B')} free"
    measured = "" if memory["measured"] is None else f"; measured, with all else: {si(memory['measured'], 'B')}"
    verdict = "" if memory["fits"] else ". It does not fit: lower training.micro_batch_tokens"
    activations = f"activations about {si(memory['activations'], 'B')}"
    again = memory["recomputed_blocks"]
    saved = f"; {count(again, 'block')} computed twice to save memory" if again else ""
    return f"{si(memory['total'], 'B')} ({parts}, {activations}{saved}){measured}{free}{verdict}"


def _speed(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    speed, time, device = found["speed"], found["time"], found["device"]
    if speed is None:
        yield "speed", "not measured: the step does not fit into memory"
        return
    yield (
        "speed",
        f"{si(speed['tokens_per_second'])} tokens/s, {speed['seconds_per_step']:.3g} s a step "
        f"(measured on {speed['measured_on']})",
    )
    yield (
        "utilisation",
        f"{si(speed['flops_per_second'], 'FLOP/s')} of {si(device['peak_flops_per_second'], 'FLOP/s')} a process "
        f"({device['peak_source']}): {speed['mfu']:.1%} MFU",
    )
    rest = [(time["validation_seconds"], "validation"), (time["compile_seconds"], "compiling")]
    besides = ", ".join(f"{what} {duration(seconds)}" for seconds, what in rest if seconds)
    total = duration(3600 * time["total_hours"])
    yield "time", f"{total}: training {duration(time['training_seconds'])}{', ' if besides else ''}{besides}"
