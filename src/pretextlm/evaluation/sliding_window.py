"""Perplexity of a text file by sliding windows, as documented by transformers ("Perplexity of fixed-length models").

The tokens of the file are one sequence. A window of `length` tokens moves over it by `stride`; of each window only the
tokens that no window before it held are scored, given all of the window before them:

    tokens     0 1 2 3 4 5 6 7 8           length 4, stride 2
    windows    0 1 2 3                     scored 1 2 3
                   2 3 4 5                 scored 4 5
                       4 5 6 7             scored 6 7
                           6 7 8           scored 8

As in that recipe, the mean of a window counts by its new tokens less one, so that the numbers are equal to its digits.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch
from pretextlm.data.streams import open_bytes
from pretextlm.data.tokenizer import tokenizer_errors
from pretextlm.errors import UserError
from pretextlm.evaluation.result_files import EVALUATION, ResultFiles, absolute
from pretextlm.evaluation.trained_model import open_trained, weights_used
from pretextlm.files import AnyPath, write_json
from pretextlm.hf.export_tokenizer import exported_template
from pretextlm.memory import memory_errors
from pretextlm.metric import Metric
from pretextlm.training.run_directory import Run
from pretextlm.training.runtime import Device, as_device

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer

BATCH_TOKENS = 8192
"""Tokens of the windows that are read at once; at least one window."""


@dataclass(frozen=True)
class TextFile:
    """A text as a model reads it.

    Attributes:
        place: of the file.
        sha256: of its text in UTF-8.
        tokens: (T,) ids, with the special tokens that the tokenizer adds.
        words: number of words between white space.
        size: of the text in UTF-8 bytes.
    """

    place: str
    sha256: str
    tokens: NDArray[np.int64]
    words: int
    size: int


@dataclass(frozen=True)
class WindowLosses:
    """Losses of W windows.

    Attributes:
        totals: (W,) summed losses of the scored tokens in nats.
        counts: (W,) their number.
        weights: (W,) weight of the window's mean.
    """

    totals: NDArray[np.float64]
    counts: NDArray[np.int64]
    weights: NDArray[np.int64]

    @property
    def mean(self) -> float:
        """Mean loss of a token in nats."""
        return float((self.totals / self.counts * self.weights).sum() / self.weights.sum())


@memory_errors("while evaluating", "Give shorter windows: --length 1024.")
def evaluate_text(
    run: AnyPath,
    files: Sequence[AnyPath],
    *,
    length: int | None = None,
    stride: int | None = None,
    progress: Callable[[str], None] | None = None,
    device: Device = "cpu",
) -> dict[str, Any]:
    """Measures the perplexity of text files under a decoder, and writes it into evaluation-NAME.json of the run.

    Args:
        run: the run, or its directory.
        files: UTF-8 texts, also compressed; each is one sequence. NAME is the name of the first.
        length: tokens of a window; by default as many as the model has positions for, or reads in training.
        stride: tokens by which the window moves; by default half its length.
        progress: called with a few words at each stage.
        device: "cpu", "cuda" or "auto".

    Returns:
        The content of the file: of all files together, and under "sources" of each if there are several.

    Raises:
        UserError: the model does not read a text from left to right, a file is no text or too short, or a number is out
            of range.
    """
    say = progress or (lambda text: None)
    run = Run.open(run)
    model, objective, texts = open_trained(run, as_device(device))
    prompt = objective.decoder_prompt(texts.vocabulary, model.config.architecture, [])
    if model.config.architecture != "decoder" or prompt is None or prompt.source is not None:
        raise UserError(
            f"A model trained by {objective.name} does not predict a text from left to right.",
            "Its pseudo-perplexity or loss is measured on a store: pretextlm evaluate RUN --store DIR",
        )
    length, stride = _window(run, model, length, stride)
    read = [_read(run, Path(file)) for file in files]
    found = []
    for text in read:
        say(f"{text.place}: {len(text.tokens):,} tokens")
        found.append(window_losses(model, text.tokens, length, stride))
    whole = WindowLosses(*(np.concatenate(arrays) for arrays in zip(*(vars(f).values() for f in found), strict=True)))
    results = ResultFiles.of(run.directory, ", ".join(absolute(text.place) for text in read), own="")
    evaluation: dict[str, Any] = {
        "metrics": {name: metric.plain() for name, metric in _metrics(whole, read).items()},
        "settings": {
            **weights_used(run),
            "measured_on": results.place,
            "file": results.path(EVALUATION).name,
            "sha256": {text.place: text.sha256 for text in read},
            "tokens": sum(len(text.tokens) for text in read),
            "scored": int(whole.counts.sum()),
            "words": sum(text.words for text in read),
            "bytes": sum(text.size for text in read),
            "windows": len(whole.totals),
            "length": length,
            "stride": stride,
        },
    }
    if len(read) > 1:
        evaluation["sources"] = {
            text.place: {
                "tokens": len(text.tokens),
                "metrics": {name: metric.plain() for name, metric in _metrics(losses, [text]).items()},
            }
            for text, losses in zip(read, found, strict=True)
        }
    write_json(results.path(EVALUATION), evaluation)
    return evaluation


def window_losses(model: Transformer, tokens: NDArray[np.int64], length: int, stride: int) -> WindowLosses:
    """Scores a sequence by sliding windows.

    Args:
        model: a decoder in eval mode.
        tokens: (T,) at least two.
        length: of a window.
        stride: at least 2, at most `length`.
    """
    import torch

    from pretextlm.model.model_inputs import prepare
    from pretextlm.scoring.log_probabilities import score_labels

    device = model.embed_tokens.weight.device
    totals, counts, weights = [], [], []
    for ids, new in _batches(tokens, length, stride):
        # The label of column t is the token of column t + 1. A token is scored where it is new and has one before it.
        width = ids.shape[1]
        labels = np.full(ids.shape, IGNORE, np.int32)
        scored = np.arange(1, width) >= (width - new)[:, None]
        labels[:, :-1][scored] = ids[:, 1:][scored]
        with torch.inference_mode():
            batch = Batch(input_ids=ids.astype(np.int32), labels=labels, attention="causal")
            outputs = model(prepare(batch, model.config, device, torch.float32))
            logs = score_labels(model, outputs.hidden_ND, outputs.labels_N).log_probabilities
        each = scored.sum(axis=1)
        totals += [-float(some.sum()) for some in np.split(logs, np.cumsum(each)[:-1])]
        counts += each.tolist()
        weights += (new - 1).tolist()
    kept = np.array(counts) > 0
    return WindowLosses(np.array(totals)[kept], np.array(counts)[kept], np.array(weights)[kept])


def _batches(tokens: NDArray[np.int64], length: int, stride: int) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
    """Yields (B, width) windows and (B,) the number of tokens at the end of each that no window before it held."""
    # The last window is the first that reaches the end; all others are full.
    full = max(0, -(-(len(tokens) - length) // stride))
    begins = np.arange(full) * stride
    new = np.where(np.arange(full) == 0, length, stride)
    step = max(1, BATCH_TOKENS // length)
    for start in range(0, full, step):
        some = begins[start : start + step]
        yield tokens[some[:, None] + np.arange(length)], new[start : start + step]
    last = tokens[full * stride :]
    yield last[None], np.array([len(last) - (length - stride if full else 0)])


def _window(run: Run, model: Transformer, length: int | None, stride: int | None) -> tuple[int, int]:
    """Returns the length of a window and the stride.

    Raises:
        UserError: a number is out of range.
    """
    positions = model.config.positions
    most = positions.max_position_embeddings - positions.offset
    length = length or (most if most > 0 else run.recipe.data.length)
    if length < 2 or (0 < most < length):
        bound = f"at most {most:,} tokens" if most > 0 else "two tokens or more"
        raise UserError(f"A window of {length:,} tokens does not suit the model, which reads {bound}.", "Set --length.")
    stride = stride or max(1, length // 2)
    if not 2 <= stride <= length:
        raise UserError(
            f"A stride of {stride:,} does not suit windows of {length:,} tokens.",
            f"Give a stride of 2 to {length:,}; half the length is usual.",
        )
    return length, stride


def _read(run: Run, path: Path) -> TextFile:
    """Reads and tokenizes a file as the exported model's tokenizer does in transformers.

    Raises:
        UserError: it is no UTF-8 text, or has fewer than two tokens.
    """
    with open_bytes(path) as stream:
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}.", "Convert it.") from None
    # In transformers, the text of a special token becomes that token: "<unk>" in WikiText-2 for Llama's tokenizer.
    tokenizer = type(run.tokenizer).from_str(run.tokenizer.to_str())
    tokenizer.encode_special_tokens = False
    with tokenizer_errors():
        ids = exported_template(run).around(tokenizer.encode(text, add_special_tokens=False).ids)
    if len(ids) < 2:
        raise UserError(f"{path} has no two tokens.", "Give a longer text.")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return TextFile(os.fspath(path), digest, np.array(ids, np.int64), len(text.split()), len(text.encode()))


def _metrics(losses: WindowLosses, read: Sequence[TextFile]) -> dict[str, Metric]:
    """Returns the loss per token, and perplexities per token, word and byte, without standard errors: of one text."""
    tokens, words, size = (
        sum(values) for values in zip(*((len(t.tokens), t.words, t.size) for t in read), strict=True)
    )
    nats = losses.mean * tokens  # the first tokens, which nothing precedes, count as the others do on average
    scored = int(losses.counts.sum())
    return {
        "loss": Metric(losses.mean, scored, None, "nats", "lower"),
        "perplexity": Metric(_exp(losses.mean), scored, None, "", "lower"),
        "word_perplexity": Metric(_exp(nats / max(words, 1)), words, None, "", "lower"),
        "byte_perplexity": Metric(_exp(nats / size), size, None, "", "lower"),
        "bits_per_byte": Metric(nats / size / math.log(2), size, None, "bits", "lower"),
    }


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))
