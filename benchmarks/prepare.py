"""How fast text becomes a store, in how much memory, and how fast rows come out of it again.

    python benchmarks/prepare.py SOURCE [--vocab-size N]

Prints one JSON object: megabytes of text a second (reading twice, training the tokenizer and encoding included), peak
resident memory in MB, and millions of tokens a second read on one core in shuffled rows of 512, end tokens put in.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from pretextlm.data.mixture import Mixture
from pretextlm.data.prepare import PrepareConfig, prepare
from pretextlm.data.row_shapes import Frame, Variant
from pretextlm.data.store import Store

ROWS, WIDTH = 64, 512
READ_TOKENS = 10_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("--vocab-size", type=int, default=8192)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        config = PrepareConfig.parse({"vocab_size": arguments.vocab_size})
        store = prepare([arguments.source], Path(folder) / "store", config)
        seconds = time.perf_counter() - started
        megabytes = (store.train.text_bytes + store.validation.text_bytes) / 1e6
        result = {
            "source": arguments.source,
            "megabytes": round(megabytes, 1),
            "megabytes_per_second": round(megabytes / seconds, 2),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "million_tokens_read_per_second": round(read_rate(store) / 1e6, 1),
        }
    print(json.dumps(result))


def read_rate(store: Store) -> float:
    """Tokens a second."""
    reader = Mixture(store.train, Frame(end=store.vocabulary.eos), [Variant("main", raw=WIDTH, length=WIDTH)])
    batches = READ_TOKENS // (ROWS * WIDTH)
    started = time.perf_counter()
    for batch in range(batches):
        numbers, epochs = reader.shuffled(np.arange(batch * ROWS, (batch + 1) * ROWS), seed=0)
        reader.read(numbers, epochs, seed=0)
    return batches * ROWS * WIDTH / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
