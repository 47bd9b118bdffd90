"""`pretextlm evaluate RUN`: evaluate a run's newest checkpoint on held-out text, benchmarks or probes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pretextlm.cli.shared.console import print_json, stderr
from pretextlm.cli.shared.evaluation_output import show_evaluation, show_scores
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
        typer.Option(
            min=1,
            help="Only the first so many questions of each group; so many texts of a probe.",
            rich_help_panel=BENCHMARKS,
        ),
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
                show_scores(run, kind, scores)
        return
    _refuse({"--split": split, "--shots": shots, "--limit": limit}, "the run's own held-out text")
    _refuse(held_out if text else windows, "--text" if text else "a store")
    from rich.text import Text

    console = stderr()
    with interruptible(AGAIN), console.status("opening the run") as status:
        from pretextlm.training.runtime import tune_process

        tune_process()
        result = _measure(run, text, store, windows, held_out, lambda text: status.update(Text(text)), device)
    if as_json:
        print_json(result)
    else:
        show_evaluation(run, result)


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
