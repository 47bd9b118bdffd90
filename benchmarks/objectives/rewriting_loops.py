"""Peers for objectives that write a source and a target: numpy row by row, or plain loops, as the papers' code.

Written for this benchmark. A loop whose rows come out unequal pads them at the end.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from benchmarks.objectives.masking_loops import ROWS
from benchmarks.objectives.timing import Peer, Sample, padded
from numpy.typing import NDArray

from pretextlm.batch import IGNORE
from pretextlm.objectives.denoisers import Denoiser

Array = NDArray[Any]


def shifted(target: Array, start: int) -> Array:
    """What the decoder reads."""
    reads: Array = np.full_like(target, start)
    reads[:, 1:] = target[:, :-1]
    return reads


def span_corruption(sample: Sample) -> list[Peer]:
    """With the options of the objective."""
    options: Any = sample.objective
    joint = options.layout == "prefix"
    return _t5(sample, options.rate, options.mean_span_length, None, joint)


def denoiser(sample: Sample) -> list[Peer]:
    """For one row of a table of denoisers."""
    options: Any = sample.objective
    row: Denoiser = options.table[sample.rows.variant]
    mode, joint = sample.vocabulary.id_of(row.mode), options.layout == "prefix"
    if row.kind == "prefix":
        return _prefix(sample, row.rate, mode)
    if isinstance(row.mean_span_length, tuple):
        return _drawn_spans(sample, row.rate, row.mean_span_length, mode)
    return _t5(sample, row.rate, row.mean_span_length, mode, joint)


def _t5(sample: Sample, rate: float, mean: float, mode: int | None, joint: bool) -> list[Peer]:
    """Masks row by row, then sentinels and both texts for the whole batch, as the widely copied Flax script."""
    matrix, vocab = sample.matrix(len(sample.rows)), sample.vocabulary
    lists = matrix.tolist()
    sentinels = np.asarray(vocab.sentinels)
    rng = np.random.default_rng(0)

    def parts_of(total: int, parts: int) -> Array:
        opens = rng.permutation(np.arange(total - 1) < parts - 1)
        return np.bincount(np.cumsum(np.concatenate([[False], opens])), minlength=parts)

    def mask_of(length: int) -> Array:
        noise = min(max(round(length * rate), 1), length - 1)
        spans = min(max(round(noise / mean), 1), noise, length - noise)
        runs = np.stack([parts_of(length - noise, spans), parts_of(noise, spans)], axis=1).reshape(-1)
        opens = np.zeros(length, np.int8)
        opens[np.cumsum(runs)[:-1]] = 1
        return np.cumsum(opens) % 2 == 1

    def one_side(tokens: Array, hidden: Array) -> Array:
        first = hidden & ~np.roll(hidden, 1, axis=1)
        first[:, 0] = hidden[:, 0]
        marked = np.where(first, sentinels[np.cumsum(first, axis=1) - 1], tokens)
        kept = marked[~hidden | first].reshape(len(tokens), -1)
        return np.concatenate([kept, np.full((len(tokens), 1), vocab.eos)], axis=1)

    def collate(tokens: Array) -> Any:
        hidden = np.stack([mask_of(tokens.shape[1]) for _ in range(len(tokens))])
        source, target = one_side(tokens, hidden), one_side(tokens, ~hidden)
        if mode is not None:
            source = np.concatenate([np.full((len(source), 1), mode), source], axis=1)
        if not joint:
            return source, target, shifted(target, vocab.pad)
        labels = np.concatenate([np.full((len(source), source.shape[1] - 1), IGNORE), target], axis=1)
        return np.concatenate([source, target[:, :-1]], axis=1), labels

    return [
        Peer("numpy row by row, lists", lambda: collate(np.array(lists)), sample.tokens),
        Peer("numpy row by row, matrix", lambda: collate(matrix), sample.tokens),
    ]


def _drawn_spans(sample: Sample, rate: float, lengths: tuple[int, int], mode: int) -> list[Peer]:
    """Lengths drawn until enough is hidden, gaps between them; sentinels put in one by one. As UL2 is copied often."""
    count = min(ROWS, len(sample.rows))
    rows, vocab = sample.matrix(count).tolist(), sample.vocabulary

    def work() -> Any:
        rng = random.Random(0)
        sources, targets = [], []
        for ids in rows:
            wanted, spans = round(rate * len(ids)), []
            while wanted > 0:
                spans.append(min(rng.randint(*lengths), wanted))
                wanted -= spans[-1]
            room = len(ids) - sum(spans) - len(spans)
            gaps = sorted(rng.randint(0, room) for _ in spans)
            source, target, at, before = [mode], [], 0, 0
            for span, gap, mark in zip(spans, gaps, vocab.sentinels, strict=False):
                begin = at + 1 + gap - before
                source += [*ids[at:begin], mark]
                target += [mark, *ids[begin : begin + span]]
                at, before = begin + span, gap
            sources.append([*source, *ids[at:], vocab.eos])
            targets.append([*target, vocab.eos])
        labels = padded(targets, IGNORE)
        return padded(sources, vocab.pad), labels, shifted(labels, vocab.pad)

    return [Peer("loop over rows, lists", work, sample.tokens_in(count))]


def prefix(sample: Sample) -> list[Peer]:
    options: Any = sample.objective
    return _prefix(sample, options.rate, None)


def _prefix(sample: Sample, rate: float, mode: int | None) -> list[Peer]:
    """Each text cut at a random place; a source and a target in two rows, padded, or in one.

    Of our rows for an encoder-decoder, which read two texts, each half is one.
    """
    options: Any = sample.objective
    joint, vocab = options.layout == "prefix", sample.vocabulary
    count = min(ROWS, len(sample.rows))
    matrix = sample.matrix(count).astype(np.int64)
    half = matrix.shape[1] // 2
    rows = list(matrix if joint else np.concatenate([matrix[:, :half], matrix[:, half : 2 * half]]))
    lead, end = np.array([] if mode is None else [mode], np.int64), np.array([vocab.eos])

    def work() -> Any:
        rng = np.random.default_rng(0)
        low, high = max(1, round((1 - 2 * rate) * (len(rows[0]) - 1))), len(rows[0])
        if joint:
            inputs, labels, prefixes = [], [], []
            for ids in rows:
                cut = int(rng.integers(low, high))
                targets = np.full(len(ids), IGNORE)
                targets[cut - 1 : -1] = ids[cut:]
                inputs.append(ids)
                labels.append(targets)
                prefixes.append(cut)
            return np.stack(inputs), np.stack(labels), np.array(prefixes)
        sources, texts = [], []
        for ids in rows:
            cut = int(rng.integers(low, high))
            sources.append(np.concatenate([lead, ids[:cut], end]))
            texts.append(np.concatenate([ids[cut:], end]))
        target = padded(texts, IGNORE)
        return padded(sources, vocab.pad), target, shifted(target, vocab.pad)

    return [Peer("numpy row by row", work, sample.tokens_in(count))]


def denoising(sample: Sample) -> list[Peer]:
    """BART's noise as in fairseq: sentences permuted, then Poisson spans of whole words from random words on."""
    count = min(ROWS, len(sample.rows))
    vocab, found = sample.vocabulary, sample.rows
    assert found.sentence_starts is not None
    rows = list(sample.matrix(count).astype(np.int64))
    words = list(found.matrix(found.word_starts)[:count])
    sentences = list(found.matrix(found.sentence_starts | (found.position_ids == 0))[:count])
    frame = np.array([vocab.bos]), np.array([vocab.eos])

    def one(ids: Array, begins: Array, opens: Array, rng: np.random.Generator) -> Array:
        bounds = np.flatnonzero(opens)[1:]
        parts = np.split(np.arange(len(ids)), bounds)
        order = np.concatenate([parts[i] for i in rng.permutation(len(parts)).tolist()])
        ids, begins = ids[order], begins[order]
        begins[0] = True
        starts = np.append(np.flatnonzero(begins), len(ids))
        wanted = int(np.ceil(0.3 * (len(starts) - 1)))
        lengths = rng.poisson(3.5, wanted)
        total = np.cumsum(lengths)
        spans = int(np.searchsorted(total, wanted)) + 1
        lengths = lengths[:spans]
        lengths[-1] -= max(int(total[spans - 1]) - wanted, 0)
        empty, lengths = int((lengths == 0).sum()), lengths[lengths > 0]
        first = rng.permutation(len(starts) - 1)[: len(lengths)]
        begin, stop = starts[first], starts[np.minimum(first + lengths, len(starts) - 1)]
        keep = np.ones(len(ids), bool)
        for low, high in zip(begin.tolist(), stop.tolist(), strict=True):
            keep[low:high] = False
        keep[begin] = True
        ids[begin] = vocab.mask
        other = begin[rng.random(len(begin)) < 0.1]
        ids[other] = rng.integers(vocab.size, size=len(other))
        kept = ids[keep]
        return np.insert(kept, rng.integers(len(kept) + 1, size=empty), vocab.mask)

    def work() -> Any:
        rng = np.random.default_rng(0)
        sources, texts = [], []
        for ids, begins, opens in zip(rows, words, sentences, strict=True):
            sources.append(np.concatenate([frame[0], one(ids, begins, opens, rng), frame[1]]))
            texts.append(np.concatenate([frame[0], ids, frame[1]]))
        target = np.stack(texts)
        return padded(sources, vocab.pad), target, shifted(target, vocab.eos)

    return [Peer("numpy row by row, as fairseq", work, sample.tokens_in(count))]


def masked_sequence(sample: Sample) -> list[Peer]:
    """MASS: one stretch of each row, its tokens replaced one by one."""
    count = min(ROWS, len(sample.rows))
    rows, vocab = list(sample.matrix(count).astype(np.int64)), sample.vocabulary
    size = round(0.5 * len(rows[0]))
    shares = np.array([0.8, 0.1, 0.1]).cumsum()

    def work() -> Any:
        rng = np.random.default_rng(0)
        sources, reads, labels, places = [], [], [], []
        for ids in rows:
            start = int(rng.integers(len(ids) - size + 1))
            hidden = ids[start : start + size]
            kind = np.searchsorted(shares, rng.random(size))
            choices = np.stack([np.full(size, vocab.mask), hidden, rng.integers(vocab.size, size=size)])
            source = ids.copy()
            source[start : start + size] = choices[kind, np.arange(size)]
            sources.append(source)
            labels.append(hidden)
            reads.append(np.concatenate([[vocab.pad], hidden[:-1]]))
            places.append(np.arange(start, start + size))
        return np.stack(sources), np.stack(reads), np.stack(labels), np.stack(places)

    return [Peer("numpy row by row, as MASS", work, sample.tokens_in(count))]
