"""Linear probes: what a frozen model's states tell, layer by layer (Alain & Bengio 2016, https://arxiv.org/abs/1610.01644).

pretextlm evaluate RUN --probe "sst2/dev.jsonl?text=sentence&label=label"

Each text becomes one vector a layer; a logistic regression learns the labels from the vectors of one part of the texts
and is judged by those of the other. Layer 0 is what the first block reads.

Axis letters: B texts of a batch, T positions, D hidden_size, E texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.counter_rng import permute
from pretextlm.errors import UserError, did_you_mean
from pretextlm.evaluation.benchmarks.rows import Record, Rows, read_files
from pretextlm.evaluation.benchmarks.run import BATCH_SIZE, Opened, Progress, add_results
from pretextlm.metric import Metric, mean
from pretextlm.model.incremental_decoding import pad_left
from pretextlm.model.model_inputs import prepare

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer

OPTIONS = ("text", "label", "test", "pool")
POOLS = ("mean", "first", "last")
TEST_SHARE = 0.2
ITERATIONS = 1000

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Probed:
    """What is probed.

    Attributes:
        file, test: where the texts are; without `test`, a fifth of `file` is kept for judging.
        text, label: names of the columns.
        pool: how the states of a text's tokens become one vector: their mean, or that of the first or last of them.
    """

    file: Path
    text: str
    label: str
    test: Path | None = None
    pool: str = "mean"

    @classmethod
    def parse(cls, spec: str) -> Probed:
        """FILE?text=COLUMN&label=COLUMN, and where wanted &test=FILE and &pool=mean. Raises UserError."""
        place, _, rest = spec.rpartition("?")
        values: dict[str, str] = {}
        for part in rest.split("&"):
            key, _, value = part.partition("=")
            if not place or key not in OPTIONS or not value or key in values:
                hint = did_you_mean(key, OPTIONS) if place and key not in OPTIONS else ""
                raise UserError(f"{spec!r} does not say what to probe.", hint or "Write FILE?text=COLUMN&label=COLUMN.")
            values[key] = value
        if not {"text", "label"} <= values.keys() or values.get("pool", "mean") not in POOLS:
            raise UserError(
                f"{spec!r} does not say what to probe.",
                f"Write FILE?text=COLUMN&label=COLUMN, and pool= one of {', '.join(POOLS)}.",
            )
        test = Path(values.pop("test")) if "test" in values else None
        return cls(Path(place), test=test, **values)


def evaluate_probe(
    directory: Path,
    spec: str,
    *,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Probe every layer of a run's newest model; returns the scores, and adds them to benchmarks.json.

    Args:
        spec: as in :meth:`Probed.parse`.
        limit: only the first so many texts (of each file).
        seed: of the part that is kept for judging.

    Raises:
        UserError: The file or a row of it is bad, or it has too few labels.
    """
    asked = Probed.parse(spec)
    rows = read_files("all", [asked.file])
    tests = None if asked.test is None else read_files("test", [asked.test])
    labelled = _labelled(rows, asked, limit)
    judged = None if tests is None else _labelled(tests, asked, limit)
    learnt, judged = (labelled, judged) if judged is not None else _parted(labelled, seed)
    opened = Opened(directory, device)
    texts = [text for text, _ in (*learnt, *judged)]
    labels, kinds = _numbered([label for _, label in learnt], [label for _, label in judged])
    states = layer_states(opened, texts, asked.pool, batch_size, progress)
    known, test = labels[: len(learnt)], labels[len(learnt) :]
    metrics: dict[str, Metric] = {}
    for layer, vectors_ED in enumerate(states):
        guessed = fit_and_predict(vectors_ED[: len(learnt)], known, vectors_ED[len(learnt) :])
        metrics[f"layer_{layer}"] = mean(guessed == test, "share", "higher")
    majority = float(np.mean(test == np.bincount(known).argmax()))
    scores = {
        f"{asked.file.name}:{asked.label}": {
            "metrics": {name: metric.plain() for name, metric in metrics.items()},
            "settings": {
                "texts": len(learnt),
                "judged": len(judged),
                "labels": kinds,
                "chance": majority,
                "limit": limit,
                "seed": seed,
                "pool": asked.pool,
                "scoring": "probe",
                "batch_size": batch_size,
                "data_sha256": {**rows.hashes, **(tests.hashes if tests else {})},
                **opened.settings,
            },
            "model": opened.about,
        }
    }
    add_results(directory, "probes", scores)
    return scores


@torch.inference_mode()
def layer_states(
    opened: Opened, texts: Sequence[str], pool: str, batch_size: int, progress: Progress | None = None
) -> list[F32]:
    """(E, D) vectors of the texts for each layer: what the first block reads, then what each block gives.

    A text stands in its row as a document does in training; what a model puts around it is not pooled. An
    encoder-decoder is asked for its encoder's states.
    """
    model, frame = opened.model, opened.objective.frame(opened.texts.vocabulary)
    before = [token for token in (frame.lead, frame.begin) if token is not None]
    after = [] if frame.end is None or model.encoder is None else [frame.end]
    ids = [opened.texts.encode(text) for text in texts]
    longest = model.config.positions.max_position_embeddings - model.config.positions.offset
    room = longest - len(before) - len(after) if longest > 0 else max(map(len, ids), default=0)
    rows = [[*before, *text[: max(1, room)], *after] for text in ids]
    layers = model.config.layers("decoder" if model.encoder is None else "encoder")
    found = [np.zeros((len(texts), model.config.hidden_size), np.float32) for _ in range(layers + 1)]
    order = np.argsort([len(row) for row in rows], kind="stable")
    for start in range(0, len(rows), batch_size):
        part = order[start : start + batch_size]
        hidden = _states_of(model, [rows[n] for n in part], opened.texts.vocabulary.pad)
        lengths = torch.tensor([len(rows[n]) - len(before) - len(after) for n in part])
        for layer, states_BTD in enumerate(hidden):
            inner = states_BTD[:, : states_BTD.size(1) - len(after)]
            found[layer][part] = _pooled(inner, lengths.to(inner.device), pool).float().cpu().numpy()
        if progress is not None:
            progress("states", min(start + batch_size, len(rows)), len(rows))
    return found


def _states_of(model: Transformer, rows: Sequence[Sequence[int]], pad: int) -> list[Tensor]:
    """(B, T, D) of what the first block reads and of each block's output; rows padded at the left."""
    blocks = model.decoder if model.encoder is None else model.encoder
    assert blocks is not None, "a model has at least one stack"
    ids, segments, positions = pad_left(rows, pad)
    seen: list[Tensor] = []

    def first(_: Any, inputs: tuple[Tensor, ...]) -> None:
        if not seen:
            seen.append(inputs[0])

    handles = [blocks[0].register_forward_pre_hook(first)]
    handles += [block.register_forward_hook(lambda _, __, out: seen.append(out)) for block in blocks]
    device = model.embed_tokens.weight.device
    try:
        batch = Batch(
            input_ids=ids,
            segment_ids=segments,
            position_ids=positions,
            attention="bidirectional" if model.encoder is not None else "causal",
        )
        inputs = prepare(batch, model.config, device, torch.float32)
        _ = model.encode(inputs) if model.encoder is not None else model.decode(inputs, None)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _pooled(states_BTD: Tensor, lengths_B: Tensor, pool: str) -> Tensor:
    """(B, D) of the last `lengths` positions of each row."""
    width = states_BTD.size(1)
    if pool == "last":
        return states_BTD[:, -1]
    if pool == "first":
        return states_BTD[torch.arange(len(lengths_B), device=states_BTD.device), width - lengths_B.clamp(min=1)]
    places_T = torch.arange(width, device=states_BTD.device)
    inside_BT = (places_T >= width - lengths_B[:, None]).to(states_BTD.dtype)
    return (states_BTD * inside_BT[:, :, None]).sum(dim=1) / lengths_B.clamp(min=1)[:, None]


def _labelled(rows: Rows, asked: Probed, limit: int | None) -> list[tuple[str, str]]:
    """(text, label) of each row. Raises UserError for a row without one of them."""
    return [_pair(record, asked) for record in rows.records[:limit]]


def _pair(record: Record, asked: Probed) -> tuple[str, str]:
    for name in (asked.text, asked.label):
        if name not in record.values:
            raise UserError(f"{record.where}: no column {name!r}.", did_you_mean(name, map(str, record.values)))
    text, label = record.values[asked.text], record.values[asked.label]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{record.where}: {asked.text} is empty or no text.", "Mend the row, or take it out.")
    if isinstance(label, float) or not isinstance(label, str | int) or not str(label).strip():
        raise UserError(
            f"{record.where}: {asked.label} is {label!r}, no label.", "A label is a word or a whole number."
        )
    return text, str(label)


def _parted(labelled: list[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """A drawn fifth is kept for judging."""
    count = len(labelled)
    order = permute(np.arange(count), count, seed, 0).tolist()
    kept = round(count * TEST_SHARE)
    return [labelled[n] for n in order[kept:]], [labelled[n] for n in order[:kept]]


def _numbered(learnt: list[str], judged: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Numbers of all labels, in the order of their names. Raises UserError when there is nothing to tell apart."""
    kinds = sorted(set(learnt))
    if len(kinds) < 2 or not judged:
        raise UserError(
            f"There are {len(learnt)} texts to learn from with {len(kinds)} labels, and {len(judged)} to be judged by.",
            "A probe needs two labels at least, and texts of its own to be judged by.",
        )
    unknown = sorted(set(judged) - set(kinds))
    if unknown:
        raise UserError(f"The label {unknown[0]!r} is nowhere in what is learnt from.", "Give more texts.")
    number = {kind: place for place, kind in enumerate(kinds)}
    return np.array([number[label] for label in (*learnt, *judged)], np.int64), kinds


def fit_and_predict(vectors: F32, labels: NDArray[np.int64], test_vectors: F32) -> NDArray[np.int64]:
    """Fit a logistic regression to standardised vectors and predict the labels of others.

    Args:
        vectors: (E, D) training vectors.
        labels: (E,) their labels.
        test_vectors: (F, D) vectors to classify.

    Returns:
        (F,) predicted labels.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    predicted: NDArray[np.int64] = probe.fit(vectors, labels).predict(test_vectors)
    return predicted
