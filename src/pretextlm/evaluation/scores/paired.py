"""Answers beside the labels that were wanted: checked to be as many and of one kind, and numbered by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Label = str | int | bool


@dataclass(frozen=True)
class Paired:
    """Labels as class numbers.

    Attributes:
        classes: the labels themselves, in order.
        answers, wanted: (N,) index into `classes`, or len(classes) for a label that is none of them.
    """

    classes: list[Any]
    answers: NDArray[np.int64]
    wanted: NDArray[np.int64]


def paired(answers: Sequence[Label], wanted: Sequence[Label], classes: Sequence[Label] | None = None) -> Paired:
    """Number the labels of both sides.

    Args:
        classes: the labels that count; by default all that occur on either side, sorted.

    Raises ValueError when there is none, where one side has more than the other, or where kinds are mixed.
    """
    count = same_length(answers, wanted)
    kinds = {_kind(label) for side in (answers, wanted, classes or ()) for label in side}
    if len(kinds) > 1:
        raise ValueError(f"labels of {' and '.join(sorted(kinds))} cannot be compared")
    known = sorted({*answers, *wanted}) if classes is None else list(classes)
    index = {label: number for number, label in enumerate(known)}
    one, other = (
        np.fromiter((index.get(label, len(known)) for label in s), np.int64, count) for s in (answers, wanted)
    )
    return Paired([label.item() if isinstance(label, np.generic) else label for label in known], one, other)


def numbers(answers: ArrayLike, wanted: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two columns of finite numbers, (N,) each. Raises ValueError for anything else."""
    one, other = np.asarray(answers, np.float64), np.asarray(wanted, np.float64)
    if one.ndim != 1 or one.shape != other.shape or not len(one):
        raise ValueError(f"needs two lists of numbers of one length, not of shapes {one.shape} and {other.shape}")
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        raise ValueError("a number is infinite or none")
    return one, other


def same_length(answers: Sequence[Any], wanted: Sequence[Any]) -> int:
    """How many there are. Raises ValueError when that is nothing or not the same on both sides."""
    if len(answers) != len(wanted) or not len(answers):
        raise ValueError(f"{len(answers)} answers where {len(wanted)} are wanted")
    return len(answers)


def _kind(label: Any) -> str:
    if isinstance(label, str):
        return "text"
    return "whole numbers" if isinstance(label, int | np.integer | np.bool_) else type(label).__name__
