"""`pretextlm evaluate RUN`: evaluate a run's newest checkpoint on held-out text, benchmarks or probes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pretextlm.errors import UserError

BENCHMARKS = "Benchmarks and probes"
TEXT = "Perplexity of a text file"

AGAIN = "What was being measured is not written; the same command starts again."


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory, as `pretextlm pretrain` or `finetune` wrote it.")],
    store: Annotated[
        Path | None,
        typer.Option(
            help="Store to measure on, prepared with the run's tokenizer, or for a fine-tuned run a file of records. "
            "By default the one it was trained on."
        ),
    ] = None,
    documents: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Read at most so many held-out documents, sampled in proportion over the store's sources. "
            "By default as the run's recipe says.",
        ),
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N|all", help="Sample documents of about so many tokens. By default as the run's recipe says."
        ),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Instead, measure the perplexity of this text by sliding windows; may be repeated.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Tokens of a window; by default the model's positions, or the row of its training.",
            rich_help_panel=TEXT,
        ),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens by which the window moves; by default half its length.", rich_help_panel=TEXT),
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between them (blimp,lambada,kobest_*), or TOML files of your own.",
            rich_help_panel=BENCHMARKS,
        ),
    ] = None,
    harness: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-eval by its names, with commas between them.", rich_help_panel=BENCHMARKS),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(
            metavar="FILE?text=…&label=…",
            help="Accuracy of a linear classifier on the frozen hidden states of each layer.",
            rich_help_panel=BENCHMARKS,
        ),
    ] = None,
    data: Annotated[
        str,
        typer.Option(
            help="Directory with local copies of the benchmarks' files, or hf: for each one's place on the hub.",
            rich_help_panel=BENCHMARKS,
        ),
    ] = "hf:",
    split: Annotated[
        str | None, typer.Option(help="Split of the benchmark; by default its own.", rich_help_panel=BENCHMARKS)
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(min=0, help="Examples shown; by default as the benchmark says.", rich_help_panel=BENCHMARKS),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Only the first so many questions of each group.", rich_help_panel=BENCHMARKS),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Texts read at once; changes no score.", rich_help_panel=BENCHMARKS)
    ] = 32,
    scoring: Annotated[
        str,
        typer.Option(help="auto, continuation, pseudo, pseudo_word or cloze.", rich_help_panel=BENCHMARKS),
    ] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the examples shown.", rich_help_panel=BENCHMARKS)] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.", rich_help_panel=BENCHMARKS)] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Evaluate a trained model on held-out text, on benchmarks, or with probes.

    Every model fills the same blanks, in the way of its objective: it writes the missing words, and chooses the right
        word
    among ten (random guessing is right one time in ten). Measures of its objective are added, such as bits per byte,
    pseudo-perplexity or exactly restored spans. A model whose objective does not fill blanks has only these. The
    results are written into the run directory: those on its own text into evaluation.json, others beside it.

    With --text, the perplexity of files is measured as published ones are, by sliding windows:

        pretextlm evaluate runs/mine --text wiki.valid.txt --stride 512

    With --benchmark, --harness or --probe, only that is done, and scores are added to the run's benchmarks.json:

        pretextlm evaluate runs/mine --benchmark blimp,arc_easy --data data/eval --limit 100
    """
    from pretextlm.cli.shared.console import print_json, stderr
    from pretextlm.cli.shared.interrupt import interruptible

    held_out = {"--store": store, "--documents": documents, "--tokens": tokens}
    windows = {"--text": text or None, "--length": length, "--stride": stride}
    special = {"benchmark": benchmark, "harness": harness, "probe": probe}
    if any(special.values()):
        _refuse(held_out | windows, "--benchmark, --harness or --probe")
        if not benchmark and not harness:
            _refuse({"--split": split, "--shots": shots}, "--probe")
        options = {"data": data, "shots": shots, "limit": limit, "method": scoring, "seed": seed, "split": split}
        with interruptible(AGAIN):
            found = _special(run, special, {**options, "batch_size": batch_size}, device)
        if as_json:
            print_json(found)
        else:
            for kind, scores in found.items():
                _show_scores(run, kind, scores)
        return
    _refuse({"--split": split, "--shots": shots, "--limit": limit}, "the run's own held-out text")
    _refuse(held_out if text else windows, "--text" if text else "a store")
    console = stderr()
    with interruptible(AGAIN), console.status("opening the run") as status:
        from pretextlm.training.runtime import tune_process

        tune_process()
        result = _measure(run, text, store, windows, held_out, status.update, device)
    if as_json:
        print_json(result)
    else:
        _show(run, result)


def _measure(
    run: Path,
    text: list[Path] | None,
    store: Path | None,
    windows: Mapping[str, Any],
    held_out: Mapping[str, Any],
    progress: Callable[[str], None],
    device: str,
) -> dict[str, Any]:
    """Measure the files of --text, or held-out text."""
    if text:
        from pretextlm.evaluation.sliding_window import evaluate_text

        size = {"length": windows["--length"], "stride": windows["--stride"]}
        return evaluate_text(run, text, **size, progress=progress, device=device)
    from pretextlm.evaluation.evaluate import evaluate as measure

    limits = {name: _number_or_all(f"--{name}", held_out[f"--{name}"]) for name in ("documents", "tokens")}
    return measure(run, store=store, **limits, progress=progress, device=device)


def _number_or_all(option: str, value: str | None) -> int | None:
    """Return a limit; 0 for "all"."""
    if value is None or value == "all":
        return None if value is None else 0
    if not value.isdecimal() or not int(value):
        raise UserError(f"{option} {value} is no number of {option[2:]}.", f"Give a number, or {option} all.")
    return int(value)


def _refuse(options: Mapping[str, Any], where: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"{given[0]} says nothing of {where}.", f"Leave out {given[0]}.")


def _special(run: Path, asked: Mapping[str, str | None], options: dict[str, Any], device: str) -> dict[str, Any]:
    """Run the requested benchmarks or probes with a progress bar."""
    from pretextlm.training.runtime import choose_device, tune_process

    tune_process()
    found: dict[str, Any] = {}
    options["device"] = choose_device(device)
    from pretextlm.cli.shared.progress_bar import Bar

    with Bar() as bar:
        options["progress"] = bar.show
        if asked["benchmark"]:
            from pretextlm.evaluation.benchmarks.definition import find_all
            from pretextlm.evaluation.benchmarks.run import evaluate_benchmarks

            found["benchmarks"] = evaluate_benchmarks(run, find_all(asked["benchmark"]), **options)
        if asked["harness"]:
            from pretextlm.evaluation.harness import evaluate_harness

            found["harness"] = evaluate_harness(run, asked["harness"], **options)
        if asked["probe"]:
            from pretextlm.evaluation.probes import evaluate_probe

            names = ("limit", "batch_size", "seed", "progress", "device")
            found["probes"] = evaluate_probe(run, asked["probe"], **{name: options[name] for name in names})
    return found


def _show_scores(run: Path, kind: str, scores: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pretextlm.metric import arrow

    methods = {one["settings"]["scoring"] for one in scores.values()}
    by = f", scored by {methods.pop()}" if len(methods) == 1 else ""
    table = Table(title=f"{run}: {kind}{by}", title_justify="left")
    for heading in ("", "measure", "value ± error", "of", "chance"):
        table.add_column(heading, justify="left" if heading in ("", "measure") else "right")
    notes = ["↓ lower is better, ↑ higher is better, → the nearest to that value; errors are standard errors."]
    for name, one in scores.items():
        settings = one["settings"]
        for nth, (measure, metric) in enumerate(one["metrics"].items()):
            error = "" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}"
            chance = settings.get("chance") if metric["unit"] == "share" and "f1" not in measure else None
            row = [f"{metric['value']:.4f}{error}", f"{metric['n']:,}", "" if chance is None else f"{chance:.3f}"]
            table.add_row(name if not nth else "", f"{measure} {arrow(metric['better'])}", *row)
        notes += _notes(name, one, several_methods=bool(methods))
    console = Console(emoji=False, markup=False, highlight=False)
    console.print(table)
    for note in notes:
        console.print(note)


def _notes(name: str, one: Mapping[str, Any], several_methods: bool) -> list[str]:
    """Returns remarks on a score."""
    settings, notes = one["settings"], []
    if settings.get("limit"):
        part = "file" if settings["scoring"] == "probe" else "group"
        notes.append(f"{name}: only the first {settings['limit']:,} of each {part}.")
    if settings.get("cropped"):
        notes.append(f"{name}: {settings['cropped']:,} texts were longer than the model reads, and lost their start.")
    if settings.get("shots_from"):
        notes.append(f"{name}: examples are shown from {settings['shots_from']}.")
    if groups := one.get("groups"):
        notes.append(f"{name}: {len(groups)} groups, whose scores are in the run's benchmarks.json.")
    if several_methods:
        notes.append(f"{name}: scored by {settings['scoring']}.")
    return notes


def _show(run: Path, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{run}", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("± standard error", justify="right")
    table.add_column("unit")
    table.add_column("measured on", justify="right")
    for name, metric in result["metrics"].items():
        error = "" if metric["stderr"] is None else f"{metric['stderr']:.4f}"
        table.add_row(_labelled(name, metric), f"{metric['value']:.4f}", error, metric["unit"], f"{metric['n']:,}")
    console = Console(markup=False)
    console.print(table)
    if sources := result.get("sources"):
        console.print(_source_table(sources))
    for line in _read(run, result):
        console.print(line, highlight=False)
    chance = " A blind blank_choice is right 0.1 of the time." if result["settings"].get("blanks") else ""
    console.print(f"↓ lower is better, ↑ higher is better.{chance}", highlight=False)
    for note in result.get("notes", []):
        console.print(note, highlight=False, markup=False)


def _read(run: Path, result: dict[str, Any]) -> Iterator[str]:
    """Yield lines on what was read, and where the results are."""
    settings = result["settings"]
    if "windows" in settings:
        yield (
            f"{settings['scored']:,} of {settings['tokens']:,} tokens scored in {settings['windows']:,} windows of "
            f"{settings['length']:,}, stride {settings['stride']:,}; {settings['words']:,} words, "
            f"{settings['bytes']:,} bytes."
        )
    if "documents_total" in settings:
        from pretextlm.metric import amount_read

        yield f"Read {amount_read(settings)}."
    if "loss" in result["metrics"] and result["metrics"]["loss"]["stderr"] is None and "documents" in settings:
        yield "No standard error of the loss: it is over documents, and fewer than ten were read. Try --tokens all."
    yield f"Written to {run / settings['file']}."


def _source_table(sources: Mapping[str, Any]) -> Any:
    """Return a table of the measures on each source."""
    from rich.table import Table

    found = {name: metric for source in sources.values() for name, metric in source["metrics"].items()}
    measures = {name: found[name] for name in ("loss", "perplexity", "bits_per_byte") if name in found}
    table = Table(title="by source", title_justify="left")
    table.add_column("source")
    for heading in ("documents", "tokens", *(_labelled(name, metric) for name, metric in measures.items())):
        table.add_column(heading, justify="right")
    for name, source in sources.items():
        read = [_part(source, "documents"), _part(source, "tokens")]
        table.add_row(name, *read, *(_value(source["metrics"].get(measure)) for measure in measures))
    return table


def _labelled(name: str, metric: Mapping[str, Any]) -> str:
    from pretextlm.metric import arrow

    return f"{name} {arrow(metric['better'])}"


def _value(metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return ""
    return f"{metric['value']:.4f}" + ("" if metric["stderr"] is None else f" ± {metric['stderr']:.4f}")


def _part(source: Mapping[str, Any], name: str) -> str:
    some, every = source.get(name), source.get(f"{name}_total")
    return "" if some is None else f"{some:,}" if every is None else f"{some:,} of {every:,}"
