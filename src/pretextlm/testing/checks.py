"""Checks of an objective that need no model. Each raises an AssertionError that names the broken promise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.errors import UserError
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import OPEN, ContinuationLayout, InPlaceLayout
from pretextlm.testing.contract import Contract
from pretextlm.testing.unique_text import (
    FIRST_TEXT,
    LENGTH,
    Example,
    arrays,
    batches,
    by_example,
    check,
    found_tokens,
    one_row,
    reachable,
    same_example,
    source_tokens,
    unique_split,
)


def check_description(contract: Contract) -> None:
    """The class describes itself: name, title, paper, a sentence, architectures, and each option in words."""
    cls = type(contract.objective)
    check(vars(cls).get("name") == cls.name, "the class has a `name` of its own")
    check(bool(cls.title), "`title` names it for people")
    check("https://" in cls.paper, "`paper` holds an address")
    check(cls.summary.endswith("."), "`summary` is a sentence that ends with a full stop")
    supported = set(contract.objective.supported_architectures())
    check(bool(supported) and supported <= set(cls.architectures), "it supports some of its class's `architectures`")
    for name, field in cls.model_fields.items():
        check(bool(field.description), f"the option {name!r} has a description")
    again = cls.parse(contract.objective.model_dump(mode="json"))
    check(again == contract.objective, "it is equal to itself written down and read again")


def check_pure(contract: Contract) -> None:
    """`collate` changes neither its rows nor the keys of its random numbers."""
    for rows, _ in contract.read(24):
        rng = CounterRNG.of(1, 0, rows.example_ids)
        before, keys = copy.deepcopy(rows), rng.keys.copy()
        for array in vars(rows).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False
        try:
            contract.objective.collate(rows, contract.vocabulary, rng)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"`collate` does not write into the rows it is given: {error}") from error
        for name, value in vars(before).items():
            check(np.array_equal(getattr(rows, name), value), f"`collate` leaves the rows' {name} as they are")
        check(bool((rng.keys == keys).all()), "`collate` leaves the keys of the random numbers as they are")


def check_rows_are_independent(contract: Contract) -> None:
    """A row comes out the same alone, in any batch, and at any place of a batch."""
    together = by_example(contract.read(24))
    check(len(together) == 24, "each position of training is one row")
    for which in (np.array([5]), np.arange(24)[::-1].copy(), np.array([3, 17, 4]), np.arange(7, 20)):
        for example, row in by_example(contract.read(which)).items():
            check(same_example(row, together[example]), "a row does not depend on the other rows of its batch")


def check_pairs_are_not_glued(contract: Contract) -> None:
    """An objective of running text reads the plain documents of a store that also has pairs, and refuses pairs alone.

    In a store, the target of a pair follows its source without anything between.
    """
    objective, vocabulary = contract.objective, contract.vocabulary
    if objective.reads_pairs:
        return
    both, alone = unique_split(vocabulary, 40, 80), unique_split(vocabulary, 0, 80)
    ordinals = np.arange(24)
    expected = by_example(batches(objective, both.plain(), vocabulary, ordinals))
    found = by_example(batches(objective, both, vocabulary, ordinals))
    check(all(same_example(found[key], row) for key, row in expected.items()), "it reads the plain documents alone")
    try:
        objective.reader(alone, vocabulary, LENGTH)
    except UserError as error:
        check("field=" in error.hint, "the error says how to read both texts of a pair")
    else:
        raise AssertionError("`reader` refuses a split of pairs alone")


def check_loading(contract: Contract) -> None:
    """Any number of worker threads and processes and any size of batch give the same rows."""
    objective, vocabulary = contract.objective, contract.vocabulary

    def loader(workers: int = 1) -> Loader:
        reader = objective.reader(contract.split, vocabulary, LENGTH)

        def collate(rows: Rows, rng: CounterRNG) -> Batch:
            return objective.collate(rows, vocabulary, rng)

        return Loader(reader, collate, 3, workers, objective.noise_period, 1000.0)

    def step(first: int, count: int, size: int) -> dict[int, Example]:
        return by_example((None, batch) for batch in loader().step(first, count, size))

    expected = step(10, 12, 12)
    found = {f"batches of {size}": step(10, 12, size) for size in (1, 5)}
    with loader(workers=3) as threads:
        (first,) = [next(threads.steps(10, 12, 12))]
        found["three threads"] = by_example((None, batch) for batch in first)
    ranks = [step(10 + 4 * rank, 4, 4) for rank in range(3)]
    found["three processes"] = {example: row for rank in ranks for example, row in rank.items()}
    for how, rows in found.items():
        equal = rows.keys() == expected.keys() and all(same_example(rows[key], expected[key]) for key in rows)
        check(equal, f"{how} give the same rows as one")


def check_noise(contract: Contract) -> None:
    """The same seed, epoch and row give the same batch; another seed or epoch another one, where there is noise."""

    def collated(rows: Rows, seed: int, epoch: int) -> dict[str, NDArray[Any]]:
        rng = CounterRNG.of(seed, epoch, rows.example_ids)
        return arrays(contract.objective.collate(rows, contract.vocabulary, rng))

    def differ(one: Mapping[str, NDArray[Any]], other: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        names = [name for name in one if name != "example_ids"]
        unequal = [(one[name] != other[name]).reshape(len(one[name]), -1).any(axis=1) for name in names]
        found: NDArray[np.bool_] = np.any(unequal, axis=0)
        return found

    changed, total = 0, 0
    for rows, _ in contract.read(24):
        first = collated(rows, 1, 0)
        check(not differ(first, collated(rows, 1, 0)).any(), "the same seed, epoch and row give the same batch")
        for seed, epoch in ((1, 1), (2, 0), (0, 1)):
            changed += int(np.count_nonzero(differ(first, collated(rows, seed, epoch))))
            total += len(rows)
    check(changed >= contract.noise * total, f"{contract.noise:.0%} of the rows differ by epoch and seed")


def check_no_global_state(contract: Contract) -> None:
    """Random choices come from the counter-based generator alone, not from numpy's global one."""
    state = np.random.get_state()  # noqa: NPY002 - the state that must not matter
    try:
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
        first = by_example(contract.read(8))
        after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
        check(bool((after == before).all()), "numpy's global generator is not used")
        np.random.seed(1)  # noqa: NPY002
        second = by_example(contract.read(8))
        equal = all(same_example(first[key], second[key]) for key in first)
        check(equal, "numpy's global seed has no effect")
    finally:
        np.random.set_state(state)  # noqa: NPY002


def check_shapes(contract: Contract) -> None:
    """Batches are contiguous int32 arrays of the widths that `variants` declares."""
    variants = contract.objective.variants(contract.vocabulary, LENGTH)
    check(
        [one.name for one in variants] == contract.objective.variant_names(), "`variant_names` are those of `variants`"
    )
    for rows, batch in contract.read(24):
        variant = variants[rows.variant]
        for name, array in arrays(batch).items():
            check(array.dtype == (np.int64 if name == "example_ids" else np.int32), f"{name} is of type int32")
            check(array.flags.c_contiguous, f"{name} is contiguous")
        check(batch.input_ids.shape == (len(rows), variant.length), "input_ids are (rows, variant.length)")
        check(variant.length <= LENGTH, "a row is no longer than it may be")
        if variant.decoder_length:
            shape = (len(rows), variant.decoder_length)
            check(batch.decoder_labels.shape == shape, "decoder_labels are (rows, variant.decoder_length)")
            check(batch.decoder_input_ids.shape == shape, "decoder_input_ids are (rows, variant.decoder_length)")
        else:
            check(batch.labels.shape == batch.input_ids.shape, "labels have the shape of input_ids")
            check(batch.decoder_input_ids is None, "a variant without decoder_length has no decoder_input_ids")
        check(bool((batch.example_ids == rows.example_ids).all()), "example_ids are those of the rows, in order")


def check_blanks(contract: Contract) -> None:
    """The layout of a blank, if the objective declares one, holds the candidate, or shows where it is written."""
    vocabulary = contract.vocabulary
    left, candidate, right = (tuple(range(FIRST_TEXT + n, FIRST_TEXT + n + 2)) for n in (0, 2, 4))
    for architecture in contract.objective.supported_architectures():
        layout = contract.objective.blank_layout(vocabulary, architecture)
        if isinstance(layout, ContinuationLayout):
            check(architecture != "encoder", "a candidate is written by a decoder")
            check(len(layout.context(Blank(left, right))) > 0, "`context` holds at least one id")
        elif isinstance(layout, InPlaceLayout):
            shown = layout.row(Blank(left, right), candidate).tokens
            check({*left, *candidate, *right} <= set(shown), "`row` holds the text and the candidate")
            opened = layout.row(Blank(left, right), (OPEN, OPEN))
            check(not set(candidate) & set(opened.tokens), "`row` hides open places")
            columns = opened.columns
            check(0 in columns and all(0 <= c < len(opened.tokens) for c in columns.values()), "`columns` are in it")


def check_measures(contract: Contract) -> None:
    """Each measure has a name of its own, a title and a sentence."""
    measures = contract.objective.measures
    check(len({measure.name for measure in measures}) == len(measures), "measures have names of their own")
    check(all(m.title and m.sentence.endswith(".") for m in measures), "measures are titled and explained")


def check_padding_of_full_rows(contract: Contract) -> None:
    """Full rows hold no padding, unless documents do not fill them exactly."""
    for _, batch in [] if contract.padded else contract.read(24):
        for segments in (batch.segment_ids, batch.decoder_segment_ids):
            check(segments is None or bool((segments >= 0).all()), "full rows have no padding")
        check(not (batch.input_ids == contract.vocabulary.pad).any(), "full rows have no padding token")


def check_counts(contract: Contract) -> None:
    """`counts` are integers, and those of "lm" are the labelled positions."""
    for _, batch in contract.read(24):
        counts = contract.objective.counts(batch)
        check(all(type(count) is int and count >= 0 for count in counts.values()), "`counts` are integers, at least 0")
        if "lm" in counts:
            labelled = int(np.count_nonzero(batch.targets != IGNORE))
            check(counts["lm"] == labelled > 0, 'counts["lm"] is the number of labelled positions')


def check_source_is_recoverable(contract: Contract) -> None:
    """Input and labels together hold every token of the text that was read, and nothing else."""
    lost = total = 0
    for rows, batch in contract.read(48):
        for source, found in zip(source_tokens(rows), found_tokens(batch), strict=True):
            lost += len(source - found)
            total += len(source)
            if not contract.shows_answers:  # random replacements come from anywhere
                check(found <= source, "input and labels hold no token from elsewhere")
    check(lost <= contract.lost * total, f"input and labels hold the text but for {contract.lost:.0%} of it")


def check_labels(contract: Contract) -> None:
    """No label on padding, in training or at the end of a pass, nor on special tokens of an input that hides text."""
    from pretextlm.training.validation import evaluation_batches

    objective, vocabulary = contract.objective, contract.vocabulary
    reader = objective.reader(contract.split, vocabulary, LENGTH)
    for batch in evaluation_batches(reader, objective, vocabulary, 10**6, seed=5):
        for labels, segments in ((batch.labels, batch.segment_ids), (batch.decoder_labels, batch.decoder_segment_ids)):
            if labels is not None and segments is not None:
                check(bool((labels[segments < 0] == IGNORE).all()), "no label is on padding")
            if labels is not None:
                check(bool(((labels == IGNORE) | (labels >= 0)).all()), "a label is an id or IGNORE")
                check(not (labels == vocabulary.pad).any(), "no label is the padding token")
        if batch.labels is not None and batch.attention == "bidirectional":
            on_text = batch.labels[batch.labels != IGNORE] >= FIRST_TEXT
            check(bool(on_text.all()), "no label is a special token where the input hides text")


def check_padding_is_unseen(contract: Contract) -> None:
    """No position that predicts attends to padding, through any number of layers."""
    from pretextlm.training.validation import evaluation_batches

    reader = contract.objective.reader(contract.split, contract.vocabulary, LENGTH)
    for batch in evaluation_batches(reader, contract.objective, contract.vocabulary, 10**6, seed=5):
        if batch.segment_ids is None or not (batch.segment_ids < 0).any():
            continue
        one = one_row(batch, int((batch.segment_ids < 0).any(axis=1).argmax()))
        seen, _ = reachable(one)
        predicts = one.targets[0] != IGNORE
        check(not seen[predicts][:, one.segment_ids[0] < 0].any(), "no position that predicts sees padding")


def check_no_leak(contract: Contract) -> None:
    """A position that predicts a token sees no position that holds it, through any number of layers."""
    for _, batch in [] if contract.shows_answers else contract.read(12):
        for row in range(len(batch.input_ids)):
            one = one_row(batch, row)
            inputs, decoder = reachable(one)
            labels = one.targets[0]
            answers = (labels >= FIRST_TEXT)[:, None]
            seen = inputs & answers & (one.input_ids[0][None] == labels[:, None])
            check(not seen.any(), "no answer can be read off the input")
            if decoder is not None:
                seen = decoder & answers & (one.decoder_input_ids[0][None] == labels[:, None])
                check(not seen.any(), "no answer can be read off the decoder's input")


CHECKS: tuple[Callable[[Contract], None], ...] = (
    check_description,
    check_pure,
    check_rows_are_independent,
    check_pairs_are_not_glued,
    check_loading,
    check_noise,
    check_no_global_state,
    check_shapes,
    check_blanks,
    check_measures,
    check_padding_of_full_rows,
    check_counts,
    check_source_is_recoverable,
    check_labels,
    check_padding_is_unseen,
    check_no_leak,
)
"""All checks that need no model."""
