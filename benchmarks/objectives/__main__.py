"""How fast an objective turns rows of tokens into a batch, on one core, beside what people use today.

    python benchmarks/objectives.py [--rows 1024] [--length 512] [--repeats 9] [--json FILE]

Timed, as processor time: from the tokens of the rows in memory to all arrays of the batch. Ours reads what the store's
reader gives (one flat array of tokens with its boundaries). A peer is timed with each input it takes, from the usual
(lists of ids, which it pads and turns into arrays) to the kindest (one ready matrix with the special tokens already
marked, which leaves it the draw alone). Ours and its peers take turns, so that a slow moment of the machine meets
all of them; the median counts. Tokens are those that a row reads.

The peers for masked language modelling are Transformers' collator; for span corruption, a collator that draws the mask
row by row in numpy and then works on the whole batch, as the widely copied Flax script does; for causal language
modelling, a loop over rows.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from pretextlm.batch import Rows
from pretextlm.data.vocabulary import NAMED, Vocabulary, sentinel
from pretextlm.keyed import Keyed
from pretextlm.objectives.base import build

VOCABULARY_SIZE = 32_000
SENTINELS = 100
WHOLE_WORD_ROWS = 32
"""Rows at once for the peer's whole words: it makes a (rows, T, T) array, and is fastest where that fits the cache."""

Work = Callable[[], Any]


def vocabulary() -> tuple[Vocabulary, PreTrainedTokenizerFast]:
    """The same 32 000 tokens for us and for the peer."""
    names = [*NAMED, *(sentinel(i) for i in range(SENTINELS))]
    ids = {name: i for i, name in enumerate(names)}
    words = ids | {f"w{i}": i for i in range(len(names), VOCABULARY_SIZE)}
    named = dict(zip(("pad", "unk", "cls", "sep", "mask", "bos", "eos"), NAMED, strict=True))
    peer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token=NAMED[1])),
        **{f"{key}_token": name for key, name in named.items()},
        additional_special_tokens=[sentinel(i) for i in range(SENTINELS)],
    )
    return Vocabulary.resolve(ids, VOCABULARY_SIZE), peer


def make_rows(count: int, width: int, vocab: Vocabulary, lead: int | None) -> Rows:
    """Random text, two documents a row where there are [SEP]s, words of 1.5 tokens on average."""
    rng = np.random.default_rng(0)
    tokens = rng.choice(vocab.ordinary, (count, width)).astype(np.int32)
    starts = rng.random((count, width)) < 2 / 3
    segments = np.zeros((count, width), np.int32)
    if lead is not None:
        tokens[:, 0], tokens[:, width // 2] = lead, vocab.sep
        starts |= vocab.is_special[tokens]
        segments[:, width // 2 + 1 :] = 1
    starts[:, 0] = True
    columns = np.tile(np.arange(width, dtype=np.int32), (count, 1))
    positions = columns - np.where(segments, width // 2 + 1, 0).astype(np.int32)
    flat = [a.reshape(-1) for a in (tokens, segments, positions, starts)]
    return Rows(flat[0], np.arange(count + 1) * width, flat[1], flat[2], flat[3], np.arange(count))


def ours(name: str, options: dict[str, Any], rows: Rows, vocab: Vocabulary) -> Work:
    objective = build(name, options)
    return lambda: objective.corrupt(rows, vocab, Keyed.of(0, 0, rows.example_ids))


def masked_peers(rows: Rows, vocab: Vocabulary, tokenizer: PreTrainedTokenizerFast) -> dict[str, Work]:
    """Transformers' collator with lists, with tensors, and its masking alone on ready matrices."""
    matrix = rows.matrix(rows.tokens).astype(np.int64)
    special = vocab.is_special[matrix]
    lists, arrays = matrix.tolist(), list(matrix)
    tensors = [torch.from_numpy(row) for row in matrix]
    tensor, special_tensor = torch.from_numpy(matrix), torch.from_numpy(special)
    default = DataCollatorForLanguageModeling(tokenizer)
    as_numpy = DataCollatorForLanguageModeling(tokenizer, return_tensors="np", seed=0)
    return {
        "Transformers, lists": lambda: default(lists),
        "Transformers, tensors": lambda: default(tensors),
        "Transformers, numpy mode": lambda: as_numpy(arrays),
        "  its masking alone, tensors": lambda: default.torch_mask_tokens(tensor.clone(), special_tensor),
        "  its masking alone, numpy": lambda: as_numpy.numpy_mask_tokens(matrix.copy(), special),
    }


def whole_word_peers(rows: Rows, vocab: Vocabulary, tokenizer: PreTrainedTokenizerFast) -> dict[str, Work]:
    """The same collator's whole words, from ready matrices with the offsets that tell it where words begin."""
    matrix = torch.from_numpy(rows.matrix(rows.tokens).astype(np.int64))
    special = torch.from_numpy(vocab.is_special[matrix.numpy()])
    starts = rows.matrix(rows.word_starts)
    begin = np.cumsum(starts, axis=1) + np.arange(rows.width)  # a gap before each word, none inside
    offsets = torch.from_numpy(np.stack([begin, begin + 1], axis=-1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        collator = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True)

    def work() -> None:
        for i in range(0, len(rows), WHOLE_WORD_ROWS):
            part = slice(i, i + WHOLE_WORD_ROWS)
            collator.torch_mask_tokens(matrix[part].clone(), special[part], offsets[part])

    return {"  its masking alone, tensors": work}


def span_peers(rows: Rows, vocab: Vocabulary) -> dict[str, Work]:
    """Masks row by row, then sentinels and both texts for the whole batch."""
    matrix = rows.matrix(rows.tokens)
    lists = matrix.tolist()
    rng = np.random.default_rng(0)

    def parts_of(total: int, parts: int) -> np.ndarray:
        opens = rng.permutation(np.arange(total - 1) < parts - 1)
        return np.bincount(np.cumsum(np.concatenate([[False], opens])), minlength=parts)

    def mask_of(length: int) -> np.ndarray:
        noise = min(max(round(length * 0.15), 1), length - 1)
        spans = max(round(noise / 3.0), 1)
        runs = np.stack([parts_of(length - noise, spans), parts_of(noise, spans)], axis=1).reshape(-1)
        opens = np.zeros(length, np.int8)
        opens[np.cumsum(runs)[:-1]] = 1
        return np.cumsum(opens) % 2 == 1

    def one_side(tokens: np.ndarray, hidden: np.ndarray) -> np.ndarray:
        first = hidden & ~np.roll(hidden, 1, axis=1)
        first[:, 0] = hidden[:, 0]
        sentinels = np.asarray(vocab.sentinels)[np.cumsum(first, axis=1) - 1]
        marked = np.where(first, sentinels, tokens)
        kept = marked[~hidden | first].reshape(len(tokens), -1)
        return np.concatenate([kept, np.full((len(tokens), 1), vocab.eos)], axis=1)

    def collate(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        hidden = np.stack([mask_of(tokens.shape[1]) for _ in range(len(tokens))])
        source, target = one_side(tokens, hidden), one_side(tokens, ~hidden)
        return source, target, np.concatenate([np.full((len(target), 1), vocab.pad), target[:, :-1]], axis=1)

    return {
        "numpy row by row, lists": lambda: collate(np.array(lists)),
        "numpy row by row, matrix": lambda: collate(matrix),
    }


def causal_peers(rows: Rows, tokenizer: PreTrainedTokenizerFast) -> dict[str, Work]:
    matrix = rows.matrix(rows.tokens).astype(np.int64)
    lists, tensors = matrix.tolist(), [torch.from_numpy(row) for row in matrix]
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    def loop() -> tuple[np.ndarray, np.ndarray]:
        return np.stack([np.array(r[:-1]) for r in lists]), np.stack([np.array(r[1:]) for r in lists])

    return {"loop over rows, lists": loop, "Transformers, tensors": lambda: collator(tensors)}


def medians(works: list[Work], repeats: int) -> list[float]:
    """Seconds of processor time of each, taken in turn."""
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):  # the first turn warms up
        for work, seconds in zip(works, times, strict=True):
            start = time.process_time()
            work()
            if turn:
                seconds.append(time.process_time() - start)
    return [statistics.median(seconds) for seconds in times]


def measure(count: int, length: int, repeats: int) -> list[dict[str, Any]]:
    vocab, tokenizer = vocabulary()
    results = []
    cases: list[tuple[str, dict[str, Any]]] = [
        ("causal", {}),
        ("masked", {}),
        ("masked", {"unit": "word"}),
        ("span_corruption", {}),
    ]
    for name, options in cases:
        objective = build(name, options)
        (variant,) = objective.variants(vocab, length)
        lead = objective.frame(vocab).lead
        rows = make_rows(count, variant.raw + (lead is not None), vocab, lead)
        if name == "causal":
            peers = causal_peers(rows, tokenizer)
        elif name == "span_corruption":
            peers = span_peers(rows, vocab)
        else:
            peers = (whole_word_peers if options else masked_peers)(rows, vocab, tokenizer)
        own, *others = medians([ours(name, options, rows, vocab), *peers.values()], repeats)
        rate = count * variant.raw / 1e6
        for peer, seconds in zip(peers, others, strict=True):
            results.append(
                {
                    "objective": " ".join([name, *(f"{k}={v}" for k, v in options.items())]),
                    "peer": peer.strip(),
                    "ours_mtokens_per_second": round(rate / own, 2),
                    "peer_mtokens_per_second": round(rate / seconds, 3),
                    "ratio": round(seconds / own, 1),
                }
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the objectives on one core.")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(arguments.rows, arguments.length, arguments.repeats)
    table = Table(title=f"million tokens per second of one core; {arguments.rows} rows of {arguments.length}")
    for heading in ("objective", "ours", "peer", "its", "ratio"):
        table.add_column(heading, justify="left" if heading in ("objective", "peer") else "right")
    for r in results:
        figures = f"{r['ours_mtokens_per_second']:.1f}", r["peer"], f"{r['peer_mtokens_per_second']:.2f}"
        table.add_row(r["objective"], *figures, f"{r['ratio']:.1f}×")
    Console().print(table)
    if arguments.json:
        from importlib.metadata import version

        packages = {name: version(name) for name in ("numpy", "torch", "transformers")}
        settings = {"rows": arguments.rows, "length": arguments.length, "repeats": arguments.repeats}
        machine = {"python": platform.python_version(), "processor": platform.processor() or platform.machine()}
        text = json.dumps({"settings": settings, "machine": machine | packages, "results": results}, indent=1)
        temporary = arguments.json.with_name(arguments.json.name + ".part")
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, arguments.json)


if __name__ == "__main__":
    main()
