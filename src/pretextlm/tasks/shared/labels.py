"""Names of classes: from the recipe or the training records, and the class of each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from pretextlm.data.records import Records

UNLABELLED = "The hub writes -1 where there is no label, as in test parts: use another part, or leave such rows out."


def names_of(values: Sequence[Any], given: Sequence[str]) -> tuple[str, ...]:
    """Returns the classes in order.

    Args:
        values: labels of the training records.
        given: names of the recipe; if empty, all values that occur: numbers by size, words by the alphabet.
    """
    if given:
        return tuple(given)
    found = set(values)
    numeric = all(isinstance(value, int) for value in found)
    return tuple(str(value) for value in sorted(found, key=(lambda v: v) if numeric else str))


def classes_of(records: Records, names: Sequence[str]) -> NDArray[np.int32]:
    """Returns (E,) the class of each record.

    A label is one of the names; where the names are words, a number is the index of one, counted from 0.

    Raises:
        UserError: a label is none of them; names its row.
    """
    places = {name: place for place, name in enumerate(names)}
    if not all(name.lstrip("-").isdecimal() for name in names):
        places |= {str(place): place for place in range(len(names)) if str(place) not in places}
    values = [str(value) for value in records.labels("label")]
    found = [places.get(value, -1) for value in values]
    if -1 in found:
        index = found.index(-1)
        raise records.fault(
            index,
            f"the label {values[index]!r} is none of {', '.join(names)}",
            UNLABELLED if values[index] == "-1" else did_you_mean(values[index], names),
        )
    return np.array(found, np.int32)


def check_all_occur(classes: NDArray[np.int32], names: Sequence[str], source: str) -> None:
    """Checks that there are several classes and each has an example.

    Raises:
        UserError: a class has none, or there is only one class.
    """
    counts = Counter(classes.tolist())
    missing = [name for place, name in enumerate(names) if not counts[place]]
    if missing:
        raise UserError(
            f"{source} has no example of the class {missing[0]!r}.",
            "A model cannot learn it: add examples, or leave it out of task.labels.",
        )
    if len(names) < 2:
        raise UserError(f"All labels of {source} are {names[0]!r}.", "Give records of at least two classes.")


def weights_of(classes: NDArray[np.int32], count: int) -> tuple[float, ...]:
    """Returns the weight of each class under which all count equally: E / (C · examples of the class).

    Of 6 examples, 4 of class 0 and 2 of class 1, the weights are 0.75 and 1.5: each class sums to 3.
    """
    return tuple(float(w) for w in len(classes) / (count * np.bincount(classes, minlength=count)))


def with_probabilities(
    answers: Sequence[dict[str, Any]], labels: Sequence[str], predictions: NDArray[Any]
) -> list[dict[str, Any]]:
    """Returns answers with the probability of each label, (E, C), under "probabilities"."""
    chances = predictions.tolist()
    return [
        {**one, "probabilities": dict(zip(labels, row, strict=True))} for one, row in zip(answers, chances, strict=True)
    ]


def named_labels(labels: Sequence[str]) -> dict[str, Any]:
    """Returns the labels as a published config.json lists them, by number and by name; {} without labels."""
    if not labels:
        return {}
    return {
        "id2label": {str(place): name for place, name in enumerate(labels)},
        "label2id": {name: place for place, name in enumerate(labels)},
    }


def label_names(values: Mapping[str, Any], outputs: int) -> tuple[str, ...]:
    """Returns the names of the classes in a published config.json.

    Args:
        values: of the config.json.
        outputs: number of classes.

    Returns:
        The names of `id2label`; LABEL_0, LABEL_1, … (transformers' own) where it does not name every class by itself.
    """
    given = values.get("id2label")
    names = {str(place): str(name) for place, name in given.items()} if isinstance(given, Mapping) else {}
    found = tuple(names.get(str(place), "") for place in range(outputs))
    if len(set(found)) == outputs and all(found):
        return found
    return tuple(f"LABEL_{place}" for place in range(outputs))
