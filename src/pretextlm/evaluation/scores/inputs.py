"""Checks of the inputs of scores: predictions and references have the same length and the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Label = str | int | bool


def label_ids(
    predictions: Sequence[Label], references: Sequence[Label], classes: Sequence[Label] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Map labels to class indices.

    Args:
        predictions: Predicted label of each example.
        references: True label of each example.
        classes: Labels to index, in order; by default all that occur on either side, sorted.

    Returns:
        (N,) indices of the predictions, (N,) of the references, and the number of classes C. A label that is not in
        `classes` has the index C.

    Raises:
        ValueError: There are no examples, the two sides differ in length, or text and integer labels are mixed.
    """
    check_lengths(predictions, references)
    kinds = {_kind(label) for side in (predictions, references, classes or ()) for label in side}
    if len(kinds) > 1:
        raise ValueError(f"{' and '.join(sorted(kinds))} labels cannot be compared")
    known = sorted({*predictions, *references}) if classes is None else list(classes)
    index = {label: number for number, label in enumerate(known)}
    predicted, expected = (
        np.array([index.get(label, len(known)) for label in side], np.int64) for side in (predictions, references)
    )
    return predicted, expected, len(known)


def numbers(predictions: ArrayLike, references: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert predictions and references to (N,) arrays of float64.

    Raises:
        ValueError: There are no values, the two sides differ in shape, or a value is not finite.
    """
    predicted, expected = np.asarray(predictions, np.float64), np.asarray(references, np.float64)
    if predicted.ndim != 1 or predicted.shape != expected.shape or not len(predicted):
        raise ValueError(
            f"needs two lists of numbers of one length, not arrays of shape {predicted.shape} and {expected.shape}"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(expected).all()):
        raise ValueError("a number is infinite or NaN")
    return predicted, expected


def check_lengths(predictions: Sequence[Any], references: Sequence[Any]) -> int:
    """Return the number of examples.

    Raises:
        ValueError: There are none, or the two differ in length.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(f"{len(predictions)} predictions for {len(references)} references")
    return len(predictions)


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "text"
    return "integer" if isinstance(label, int | np.integer | np.bool_) else type(label).__name__
