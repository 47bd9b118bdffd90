"""Documents of natural length: ours streams them without padding, the rival lays them out in a way that it offers.

Every document is one example of the rival, cut at the row length, corrupted by our objective; a micro-batch holds as
many documents as fill it on average. "padded": to the longest of the batch. "grouped by length": the same, documents of
like length together by the rule of transformers' length-grouped sampler. "flattened": one after another in one row, by
the rule of its flattening collator, where positions that begin again say what may be seen. Both sides count text
tokens alone: no padding and no special token.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.training.peers import Format, PeerTrainer, feed
from benchmarks.training.peers import build as build_peer
from benchmarks.training.resident import resident
from benchmarks.training.setting import Setting
from benchmarks.training.turns import Turns
from benchmarks.training.worker import PREPARED_STEPS, run_ours
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from pretextlm.batch import IGNORE, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.store import Split, Store
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.objectives.registry import build

MEGABATCH = 50
"""Batches sorted by length together in transformers' length-grouped sampler."""
FLAT_TOKENS = 1024
"""Of a flattened row: its mask is a square, so that a short row costs least."""


def one_row(split: Split, document: int, objective: Objective, vocabulary: Vocabulary, length: int) -> Rows:
    """The document, cut at `length`, between the special tokens of the objective's frame."""
    frame = objective.frame(vocabulary)
    text = split.document(document)[: length - 3].astype(np.int32)
    ends = [[i for i in ids if i is not None] for ids in ((frame.lead, frame.begin), (frame.end,))]
    tokens = np.concatenate([np.array(ends[0], np.int32), text, np.array(ends[1], np.int32)])
    size = len(tokens)
    return Rows(
        tokens=tokens,
        offsets=np.array([0, size]),
        segment_ids=np.zeros(size, np.int32),
        position_ids=np.arange(size, dtype=np.int32),
        word_starts=np.ones(size, bool),
        example_ids=np.array([document]),
    )


def collate(examples: Sequence[dict[str, Tensor]], pad_id: int) -> dict[str, Tensor]:
    """Pad to the longest of the batch, with the attention mask that says so."""
    batch = {}
    for name in examples[0]:
        widest = max(example[name].size(1) for example in examples)
        filler = IGNORE if "labels" in name else pad_id
        batch[name] = torch.cat([pad(e[name], (0, widest - e[name].size(1)), value=filler) for e in examples])
    lengths = torch.tensor([example["input_ids"].size(1) for example in examples])
    batch["attention_mask"] = (torch.arange(batch["input_ids"].size(1)) < lengths[:, None]).long()
    return batch


def flatten(examples: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All in one row, with positions that begin again at each."""
    batch = {name: torch.cat([example[name] for example in examples], dim=1) for name in examples[0]}
    places = [torch.arange(example["input_ids"].size(1)) for example in examples]
    return {**batch, "position_ids": torch.cat(places)[None]}


def order(lengths: NDArray[np.int64], batch: int, grouped: bool) -> NDArray[np.int64]:
    """Documents in the order of training."""
    shuffled = np.random.Generator(np.random.PCG64(0)).permutation(len(lengths))
    if not grouped:
        return shuffled
    size = MEGABATCH * batch
    parts = [shuffled[start : start + size] for start in range(0, len(shuffled), size)]
    return np.concatenate([part[np.argsort(-lengths[part], kind="stable")] for part in parts])


def run_peer(setting: Setting, steps: int, options: Mapping[str, Any]) -> None:
    """The rival on batches made beforehand; `options` are Format's fields and `layout`."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    layout = options["layout"]
    chosen = Format(**{k: v for k, v in options.items() if k != "layout"})
    store = Store.open(Path(setting.store))
    vocabulary, split, objective = store.vocabulary, store.train, build(setting.objective)
    lengths = np.diff(split.documents.view(np.int64))
    micro = FLAT_TOKENS if layout == "flattened" else setting.micro_tokens
    size = max(1, round(micro / np.minimum(lengths, setting.length).mean()))
    documents = order(lengths, size, layout == "grouped by length")
    parts = setting.batch_tokens // micro
    # Whole batches from all over the epoch: with grouping, neighbours have like lengths.
    starts = np.random.Generator(np.random.PCG64(1)).permutation(len(documents) // size)[: PREPARED_STEPS * parts]
    batches, tokens = [], []
    for start in starts * size:
        members = documents[start : start + size].tolist()
        examples = []
        for document in members:
            rows = one_row(split, document, objective, vocabulary, setting.length)
            corrupted = objective.collate(rows, vocabulary, CounterRNG.of(0, 0, rows.example_ids))
            examples.append(feed(setting.objective, corrupted))
        batches.append(flatten(examples) if layout == "flattened" else collate(examples, vocabulary.pad))
        tokens.append(int(np.minimum(lengths[members], setting.length - 3).sum()))
    before = resident()
    trainer = PeerTrainer(build_peer(setting, vocabulary.size, chosen), chosen, 1e-3)
    filled = sum(tokens) / sum(batch["input_ids"].numel() for batch in batches)
    turns = Turns(steps, {"parameters": sum(p.numel() for p in trainer.parameters), "filled": filled}, before)
    while True:
        first = turns.done % PREPARED_STEPS * parts
        trainer.step(batches[first : first + parts])
        turns.step(sum(tokens[first : first + parts]))


def run_streamed(setting: Setting, steps: int, options: Mapping[str, Any]) -> None:
    """Our trainer, its stream's special tokens not counted."""
    store = Store.open(Path(setting.store))
    frame = build(setting.objective).frame(store.vocabulary)
    around = sum(token is not None for token in (frame.begin, frame.end))
    text = store.train.num_tokens
    run_ours(setting, steps, options, text / (text + around * store.train.num_documents))


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    {"ours": run_streamed, "peer": run_peer}[task["side"]](Setting(**task["setting"]), task["steps"], task["options"])
