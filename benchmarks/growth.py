"""What grows with the text, from 1 MB to 10 GB: opening, first batch, a batch in the middle, reading rate, memory.

    python -m benchmarks.growth --sizes 1e6 1e8 1e9 1e10

The State of the Union addresses are written over and over until a store holds so many bytes of text (0.6 bytes on disk
for each). Every size is measured in a process of its own, which reads and masks random rows of 512 tokens: the second
half of the steps counts for the rate. Memory is what the process holds itself, without mapped files, which the system
may drop.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.training import output
from benchmarks.training.stores import speeches

from pretextlm.data.store import Split, Store
from pretextlm.data.writer import Chunk, StoreWriter

LENGTH, ROWS, STEPS = 512, 64, 200
OBJECTIVES = ("masked", "causal", "span_corruption")


def whole(split: Split) -> Chunk:
    """All documents of a split as one piece to write."""
    words = split.word_starts(np.arange(split.num_tokens))
    lengths = np.diff(split.documents.astype(np.int64))
    sentences = split.sentences.astype(np.int64)
    return Chunk(
        split.tokens.astype(np.uint32), words, lengths, split.document_bytes, split.document_sources, sentences
    )


@contextmanager
def grown(text: Store, size: float, directory: Path) -> Iterator[Path]:
    """A store with `size` bytes of training text, removed afterwards."""
    out = directory / f"store-{size:.0e}"
    kind = text.manifest["tokenizer"]["kind"]
    tokenizer = (text.path / "tokenizer.json").read_text(encoding="utf-8")
    writer = StoreWriter(directory / "work", text.vocabulary.size, tokenizer)
    piece = whole(text.train.first_documents(20 if size < 5e6 else text.train.num_documents))
    while writer.splits["train"].text_bytes < size:
        writer.splits["train"].append(piece)
    writer.splits["validation"].append(whole(text.validation.first_documents(20)))
    writer.commit(out, (), {}, kind)
    try:
        yield out
    finally:
        subprocess.run(["rm", "-rf", str(out)], check=True)


def memory() -> float:
    """Megabytes of this process that are no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


def measure(place: Path, objective_name: str) -> dict[str, float]:
    """Figures of one store under one objective."""
    from pretextlm.data.loader import Loader
    from pretextlm.objectives.registry import build

    objective, before = build(objective_name, {}), memory()
    start = time.perf_counter()
    store = Store.open(place)
    opened = time.perf_counter()
    reader = objective.reader(store.train, store.vocabulary, LENGTH)
    loader = Loader(reader, lambda rows, rng: objective.collate(rows, store.vocabulary, rng), seed=0)
    loader.step(0, ROWS, ROWS)
    first = time.perf_counter()
    middle = reader.rows_per_pass // 2
    loader.step(middle, ROWS, ROWS)
    there = time.perf_counter()
    clock = there
    for number in range(STEPS):
        if number == STEPS // 2:
            clock = time.process_time()
        loader.step(middle + number * ROWS, ROWS, ROWS)
    rate = (STEPS - STEPS // 2) * ROWS * reader.tokens_per_row / (time.process_time() - clock)
    return {
        "open": opened - start,
        "first": first - opened,
        "middle": there - first,
        "tokens_per_second": rate,
        "memory": memory() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e6, 1e8, 1e9])
    parser.add_argument("--directory", type=Path, help="where the stores are made for a while")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(Path(options.worker[0]), options.worker[1])))
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        text = Store.open(Path(speeches(4096)))
        for size in options.sizes:
            with grown(text, size, Path(directory)) as place:
                for name in OBJECTIVES:
                    command = [sys.executable, "-m", "benchmarks.growth", "--worker", str(place), name]
                    ran = subprocess.run(command, check=True, capture_output=True, text=True)
                    found.append({"bytes": size, "objective": name, **json.loads(ran.stdout)})
    columns = ["text", "objective", "open", "first batch", "in the middle", "M tokens/s", "memory, MB"]
    rows = [
        [
            f"{one['bytes'] / 1e6:,.0f} MB",
            one["objective"],
            *(f"{one[key] * 1e3:.0f} ms" for key in ("open", "first", "middle")),
            f"{one['tokens_per_second'] / 1e6:.1f}",
            f"{one['memory']:.0f}",
        ]
        for one in found
    ]
    output.show("Cost against the size of the text", columns, rows)
    output.write(options.json, "growth", {"results": found})


if __name__ == "__main__":
    main()
