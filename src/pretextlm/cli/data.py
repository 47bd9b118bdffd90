"""`pretextlm data prepare` and `pretextlm data inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pretextlm.cli.shared.console import echo, print_json, stderr, stdout

if TYPE_CHECKING:
    from pretextlm.data.store import Split, Store

MOST_UNKNOWN = 0.01
"""Share of unknown tokens above which a warning is given."""

data = typer.Typer(help="Turn text into a store, and look into one.", no_args_is_help=True)


@data.command()
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Text files, records (.jsonl .json .csv .tsv .parquet), also .gz .zst, directories, package:NAME, "
            "hf:NAME. Fields of one source: 'FILE?field=NAME', of an inner object 'A.B', joined 'A,B'. Pairs: "
            "'FILE?source=NAME&target=NAME', then '&prefix=TEXT' before each source and '&labels=A,B' for targets 0 "
            "and 1. An encoding: 'FILE?encoding=NAME'."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the store to make.")],
    tokenizer: Annotated[
        str, typer.Option(help="bpe, wordpiece, unigram, character, or the path of a tokenizer.json or store.")
    ] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="Number of ids in all, special tokens included.")] = 8192,
    validation: Annotated[float, typer.Option(help="Share of the documents for validation.")] = 0.02,
    validation_tail: Annotated[
        float | None, typer.Option(help="Instead, the last share of each source's characters.")
    ] = None,
    field: Annotated[str, typer.Option(help="Field of records that holds the text.")] = "text",
    text_mode: Annotated[
        Literal["file", "paragraphs", "lines"], typer.Option(help="What one document of a text file is.")
    ] = "file",
    split_long: Annotated[int, typer.Option(help="Cut documents of more characters at paragraphs; 0 for never.")] = 1
    << 18,
    sample_mb: Annotated[int, typer.Option(help="Megabytes of text that the tokenizer is trained on.")] = 20,
    sentinels: Annotated[
        int | None, typer.Option(help="Number of <extra_id_N> tokens; by default 256 from 8,192 ids on, else 100.")
    ] = None,
    max_document_mb: Annotated[int, typer.Option(help="A longer line or row is a bad document.")] = 64,
    encoding: Annotated[
        str, typer.Option(help="Encoding of text without a byte order mark, for example cp949; auto recognises it.")
    ] = "utf-8",
    on_error: Annotated[Literal["error", "skip"], typer.Option(help="What to do with a bad document.")] = "error",
    licence: Annotated[str | None, typer.Option(help="Licence of the text, for the record.")] = None,
    workers: Annotated[int, typer.Option(help="Threads that encode.")] = 1,
    overwrite: Annotated[bool, typer.Option(help="Replace a store that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Prepare a store from text: train a tokenizer, encode, split by document. An interrupted run resumes where it
    stopped.
    """
    from pretextlm.data.prepare import PrepareConfig
    from pretextlm.data.prepare import prepare as run

    values = {
        "tokenizer": tokenizer,
        "vocab_size": vocab_size,
        "sentinels": sentinels,
        "sample_mb": sample_mb,
        "validation": validation,
        "validation_tail": validation_tail,
        "field": field,
        "text_mode": text_mode,
        "on_error": on_error,
        "split_long": split_long,
        "max_document_mb": max_document_mb,
        "encoding": encoding,
        "licence": licence,
        "workers": workers,
        "overwrite": overwrite,
    }
    config = PrepareConfig.parse(values, where="the options")
    from pretextlm.cli.shared.interrupt import interruptible

    kept = f"The same command goes on; what is finished is kept in {out.with_name(out.name + '.partial')}."
    with interruptible(kept), PreparationBar() as bar:
        store = run(sources, out, config, bar.update)
    if as_json:
        print_json(_summary(store), indent=None)
    else:
        _print_summary(store)


@data.command()
def inspect(
    store: Annotated[Path, typer.Argument(help="Directory of a store.")],
    samples: Annotated[int, typer.Option(min=0, help="Number of documents to show.")] = 3,
    verify: Annotated[bool, typer.Option(help="Read every file and compare it with the manifest's hash.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Show the content of a store: counts, sources and licences, lengths, samples."""
    from pretextlm.data.store import Store

    opened = Store.open(store)
    if verify:
        opened.verify()
    if as_json:
        result = _summary(opened) | {"lengths": _lengths(opened.train), "samples": sample_documents(opened, samples)}
        print_json(result | ({"verified": True} if verify else {}), indent=None)
        return
    _print_summary(opened)
    _print_lengths(opened.train)
    _print_samples(opened, samples)
    if verify:
        echo("Every file is as it was written.")


class PreparationBar:
    """Progress on stderr: current stage, megabytes per second, time left."""

    def __enter__(self) -> PreparationBar:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        rate = TextColumn("{task.fields[rate]}", markup=False)
        columns = [TextColumn("{task.description}", markup=False), BarColumn(), rate, TimeRemainingColumn()]
        self._progress = Progress(*columns, console=stderr())
        self._task: Any = None
        self._what = ""
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def update(self, what: str, done: int, total: int | None) -> None:
        if what != self._what:
            if self._task is not None:
                self._progress.update(self._task, total=1, completed=1)
            self._what, self._task = what, self._progress.add_task(what, total=total, rate="")
        self._progress.update(self._task, completed=done, total=total)
        speed = self._progress.tasks[-1].speed
        if what.startswith("training") and done > 1:
            self._progress.update(self._task, rate=f"{done} s")
        elif speed and what in ("reading", "encoding"):
            self._progress.update(self._task, rate=f"{done / 1e6:,.0f} MB, {speed / 1e6:.1f} MB/s")


def _summary(store: Store) -> dict[str, Any]:
    manifest = store.manifest
    return {
        "path": str(store.path),
        "tokenizer": manifest["tokenizer"],
        "splits": manifest["splits"],
        "sources": manifest["sources"],
        "options": manifest["options"],
        "notes": manifest["notes"],
    }


def _print_summary(store: Store) -> None:
    from rich.table import Table
    from rich.text import Text

    from pretextlm.data.directories import has_other_encodings, listed

    console = stdout()
    tokenizer = store.manifest["tokenizer"]
    console.print(Text(f"{store.path}  {tokenizer['kind']} tokenizer, {tokenizer['vocab_size']:,} ids", style="bold"))
    table = Table("split", "documents", "sentences", "words", "tokens", "MB", "bytes/token")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in store.manifest["splits"].items():
        shown = [counts[key] for key in ("documents", "sentences", "words", "tokens")]
        ratio = counts["text_bytes"] / max(1, counts["tokens"])
        table.add_row(name, *(f"{n:,}" for n in shown), f"{counts['text_bytes'] / 1e6:,.1f}", f"{ratio:.2f}")
    console.print(table)
    keys = ("documents", "parts", "bytes", "empty", "skipped")
    table = Table("source", "licence", *keys, "unknown")
    for row in store.manifest["sources"]:
        counts = [f"{row[key]:,}" for key in keys]
        table.add_row(Text(row["name"]), Text(row["licence"] or "not known"), *counts, f"{_unknown(row):.2%}")
    console.print(table)
    for note in store.manifest["notes"]:
        console.print(Text(note, style="yellow"))
    for row in store.manifest["sources"]:
        if _unknown(row) > MOST_UNKNOWN:
            what = f"Warning: {_unknown(row):.1%} of the tokens of {row['name']} are the unknown token"
            hint = (
                "the tokenizer does not know this text. One that is trained on it (--tokenizer bpe) knows every byte."
            )
            console.print(Text(f"{what}: {hint}", style="yellow"))
        if row["left_out"]:
            style = "yellow" if has_other_encodings(row["left_out"]) else ""
            console.print(Text(f"Left out of {row['name']}: {listed(row['left_out'])}", style=style))


def _unknown(source: Mapping[str, Any]) -> float:
    """Returns the share of the unknown token among a source's tokens."""
    return float(source["unknown"] / max(1, source["tokens"]))


def _lengths(split: Split) -> list[dict[str, int]]:
    """Returns how many documents have a length in each interval (1, 2], (2, 4], (4, 8] … of tokens."""
    import numpy as np

    lengths = np.diff(split.documents.view(np.int64))
    powers = np.ceil(np.log2(np.maximum(lengths, 1))).astype(np.int64)
    counts = np.bincount(powers)
    return [{"up_to": 1 << power, "documents": int(n)} for power, n in enumerate(counts) if n]


def _print_lengths(split: Split) -> None:
    from rich.text import Text

    rows = _lengths(split)
    most = max((row["documents"] for row in rows), default=1)
    console = stdout()
    console.print(Text.assemble(("Tokens in a document", "bold"), " (train)"))
    for row in rows:
        bar = "█" * max(1, round(40 * row["documents"] / most))
        console.print(f"  up to {row['up_to']:>10,}  {bar} {row['documents']:,}")


def sample_documents(store: Store, count: int, tokens: int = 64) -> list[dict[str, Any]]:
    """Returns the beginnings of `count` documents, spread over the training split; the texts of a pair joined by an
    arrow.
    """
    import numpy as np

    split = store.train
    places = sorted({split.num_documents * place // max(1, count) for place in range(count)})
    shown = []
    for place in places:
        ids = split.document(place)[:tokens].tolist()
        source = store.manifest["sources"][int(split.document_sources[place])]
        texts = [ids]
        if source["parts"] == 2:
            begin, starts = int(split.documents[place]), split.sentences.view(np.int64)
            inside = slice(*np.searchsorted(starts, [begin + 1, begin + len(ids)]))
            texts = [part.tolist() for part in np.split(ids, starts[inside] - begin)]
        text = " → ".join(store.tokenizer.decode(part) for part in texts)
        shown.append({"document": place, "source": source["name"], "tokens": ids, "text": text})
    return shown


def _print_samples(store: Store, count: int) -> None:
    from rich.text import Text

    console = stdout()
    for sample in sample_documents(store, count):
        console.print(Text.assemble((f"Document {sample['document']:,}", "bold"), f" of {sample['source']}"))
        console.print(Text("  " + sample["text"].replace("\n", "\n  ") + " …"))
