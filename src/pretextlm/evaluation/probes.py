"""Linear probes of the hidden states of each layer (Alain & Bengio 2016, https://arxiv.org/abs/1610.01644).

pretextlm evaluate RUN --probe "sst2/dev.jsonl?text=sentence&label=label"

The model is frozen. Each text becomes one vector per layer; a logistic regression is fitted to the vectors of the
training texts, and its accuracy is measured on the test texts. Layer 0 is the input of the first block.

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
from pretextlm.data.seeded_sample import sampled
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
class ProbeSpec:
    """Texts and labels of a probe.

    Attributes:
        file: File of the texts.
        text: Column of the texts.
        label: Column of the labels.
        test: File of the test texts; without it, a random fifth of `file` is the test set.
        pool: How the states of a text's tokens become one vector: "mean", or that of the "first" or "last" token.
    """

    file: Path
    text: str
    label: str
    test: Path | None = None
    pool: str = "mean"

    @classmethod
    def parse(cls, spec: str) -> ProbeSpec:
        """Parse ``FILE?text=COLUMN&label=COLUMN``, with optional ``&test=FILE`` and ``&pool=first``.

        Raises:
            UserError: An option is missing, unknown or repeated.
        """
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
    """Probe every layer of a run's newest model and add the accuracies to benchmarks.json.

    Args:
        directory: The run.
        spec: As in :meth:`ProbeSpec.parse`.
        limit: Use only so many texts of each file, sampled by the seed.
        batch_size: Texts per forward pass.
        seed: Seed of the sample and of the split into training and test texts.
        progress: Called with a label, the number of texts done, and their total.
        device: Device of the model, by default the CPU.

    Returns:
        One entry with the metrics, settings and model of the probe, as added to benchmarks.json.

    Raises:
        UserError: The file or a row of it is invalid, or there are fewer than two labels.
    """
    probe = ProbeSpec.parse(spec)
    rows = read_files("all", [probe.file])
    tests = None if probe.test is None else read_files("test", [probe.test])
    pairs = _labelled(rows, probe, limit, seed)
    train, test = _split(pairs, seed) if tests is None else (pairs, _labelled(tests, probe, limit, seed))
    opened = Opened(directory, device)
    texts = [text for text, _ in (*train, *test)]
    labels, names = _label_ids([label for _, label in train], [label for _, label in test])
    states = layer_states(opened, texts, probe.pool, batch_size, progress)
    train_labels, test_labels = labels[: len(train)], labels[len(train) :]
    metrics: dict[str, Metric] = {}
    for layer, vectors_ED in enumerate(states):
        predicted = fit_and_predict(vectors_ED[: len(train)], train_labels, vectors_ED[len(train) :])
        metrics[f"layer_{layer}"] = mean(predicted == test_labels, "share", "higher")
    majority = float(np.mean(test_labels == np.bincount(train_labels).argmax()))
    scores = {
        f"{probe.file.name}:{probe.label}": {
            "metrics": {name: metric.plain() for name, metric in metrics.items()},
            "settings": {
                "texts": len(train),
                "judged": len(test),
                "labels": names,
                "chance": majority,
                "limit": limit,
                "seed": seed,
                "pool": probe.pool,
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
    """Compute one vector per text and layer.

    A text gets the special tokens that a document has in training, which are not pooled. Of an encoder-decoder, the
    states are those of its encoder.

    Args:
        opened: The model, its objective and its tokenizer.
        texts: E texts; longer ones are truncated to the longest input of the model.
        pool: How the states of the tokens become one vector.
        batch_size: Texts per forward pass.
        progress: Called with a label, the number of texts done, and their total.

    Returns:
        For the input of the first block and the output of each block, (E, D) vectors.
    """
    model, template = opened.model, opened.texts.vocabulary.template
    if template is None:
        frame = opened.objective.frame(opened.texts.vocabulary)
        before = [token for token in (frame.lead, frame.begin) if token is not None]
        after = [] if frame.end is None or model.encoder is None else [frame.end]
    else:
        before, after = [*template.before], [*template.after]
    ids = [opened.texts.encode(text) for text in texts]
    longest = model.config.positions.length
    room = max(map(len, ids), default=0) if longest is None else longest - len(before) - len(after)
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
    """Return (B, T, D) states for the input of the first block and the output of each block; rows are padded left."""
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
    """Pool the last `lengths_B` positions of each row to (B, D)."""
    width = states_BTD.size(1)
    if pool == "last":
        return states_BTD[:, -1]
    if pool == "first":
        return states_BTD[torch.arange(len(lengths_B), device=states_BTD.device), width - lengths_B.clamp(min=1)]
    places_T = torch.arange(width, device=states_BTD.device)
    inside_BT = (places_T >= width - lengths_B[:, None]).to(states_BTD.dtype)
    return (states_BTD * inside_BT[:, :, None]).sum(dim=1) / lengths_B.clamp(min=1)[:, None]


def _labelled(rows: Rows, spec: ProbeSpec, limit: int | None, seed: int) -> list[tuple[str, str]]:
    """Return the (text, label) pair of each row; raises UserError for a row without one of them."""
    count = len(rows.records)
    chosen = sampled(np.zeros(count, np.int64), count if limit is None else limit, seed)
    return [_pair(rows.records[place], spec) for place in chosen.tolist()]


def _pair(record: Record, spec: ProbeSpec) -> tuple[str, str]:
    for name in (spec.text, spec.label):
        if name not in record.values:
            raise UserError(f"{record.where}: no column {name!r}.", did_you_mean(name, map(str, record.values)))
    text, label = record.values[spec.text], record.values[spec.label]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{record.where}: {spec.text} is empty or no text.", "Mend the row, or take it out.")
    if isinstance(label, float) or not isinstance(label, str | int) or not str(label).strip():
        raise UserError(f"{record.where}: {spec.label} is {label!r}, no label.", "A label is a word or an integer.")
    return text, str(label)


def _split(pairs: list[tuple[str, str]], seed: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Split pairs into training and test pairs; a random fifth is the test set."""
    count = len(pairs)
    order = permute(np.arange(count), count, seed, 0).tolist()
    kept = round(count * TEST_SHARE)
    return [pairs[n] for n in order[kept:]], [pairs[n] for n in order[:kept]]


def _label_ids(train: list[str], test: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Map labels to indices.

    Returns:
        Indices of the training labels followed by those of the test labels, and the sorted names of the labels.

    Raises:
        UserError: There are fewer than two labels or no test texts, or a test label has no training text.
    """
    names = sorted(set(train))
    if len(names) < 2 or not test:
        raise UserError(
            f"There are {len(train)} training texts with {len(names)} labels, and {len(test)} test texts.",
            "A probe needs at least two labels, and test texts.",
        )
    unknown = sorted(set(test) - set(names))
    if unknown:
        raise UserError(f"The label {unknown[0]!r} is nowhere in the training texts.", "Give more texts.")
    number = {kind: place for place, kind in enumerate(names)}
    return np.array([number[label] for label in (*train, *test)], np.int64), names


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
