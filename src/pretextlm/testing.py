"""Checks that an objective of your own keeps the promises that the rest of the library relies on.

    from pretextlm.testing import check_objective

    def test_my_objective():
        check_objective(MyObjective(rate=0.3))

The checks read a text in which every token occurs once. A label then names the position it came from: whether the
source can be recovered, and whether an answer can be read off somewhere, become questions about numbers.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.loader import Loader
from pretextlm.data.special_tokens import FURTHER, NAMED, sentinel
from pretextlm.data.store import Split
from pretextlm.data.token_splits import TokenSplits
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.objectives.preview.show import visibility_of
from pretextlm.scoring.blank import Blank
from pretextlm.scoring.blank_layout import OPEN, ContinuationLayout, InPlaceLayout

if TYPE_CHECKING:
    from torch import Tensor

    from pretextlm.model.config import ModelConfig
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.protocol import Architecture

LENGTH = 48
"""Tokens of an input row in the checks."""

FIRST_TEXT = 150
"""The first id of `example_vocabulary` that stands for text."""

Text = Literal["plain", "pairs", "both"]
Example = dict[str, Any]

SIZES: Mapping[Text, tuple[int, int]] = {"plain": (60, 0), "pairs": (0, 120), "both": (40, 80)}
"""Kind of text → (plain documents, pairs) of it."""


@dataclass(frozen=True)
class Contract:
    """An objective with the promises that depend on its options.

    Attributes:
        objective: to be checked.
        text: the documents that it reads: "plain", "pairs" of a source and a target, or "both".
        noise: least share of the rows that come out otherwise in another epoch or under another seed; 0 for an
            objective without random choices. Some rows are equal by chance: short texts have few masks.
        padded: whether full rows may hold padding, because documents or pairs do not fill them exactly.
        shows_answers: whether its input shows answers on purpose: tokens left as they are, shuffled or random ones.
        lost: share of the text that may be neither in the input nor in the labels.
    """

    objective: Objective
    text: Text = "plain"
    noise: float = 0.0
    padded: bool = False
    shows_answers: bool = False
    lost: float = 0.0

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return example_vocabulary()

    @cached_property
    def split(self) -> Split:
        plain, pairs = SIZES[self.text]
        return unique_split(self.vocabulary, plain, pairs)

    def read(self, count: int | NDArray[np.int64], seed: int = 1) -> list[tuple[Rows, Batch]]:
        """Returns the rows at these positions of training and their batches; rows of one variant are together."""
        ordinals = np.arange(count) if isinstance(count, int) else count
        return batches(self.objective, self.split, self.vocabulary, ordinals, seed)


def check_objective(
    objective: Objective,
    *,
    text: Text | None = None,
    noise: float = 0.0,
    padded: bool | None = None,
    shows_answers: bool = False,
    lost: float = 0.0,
) -> None:
    """Checks that an objective is pure, deterministic and well-formed, and that no answer can be read off its input.

    Args:
        objective: with the options to be checked.
        text: the documents that it reads: "plain", "pairs" or "both"; by default as `objective.reads_pairs` says.
        noise: least share of rows that must differ between epochs and seeds, such as 0.7; 0 does not check it.
        padded: whether full rows may hold padding; by default only where the objective has a reader of its own.
        shows_answers: whether the input shows answers on purpose, so that reading them off is no fault.
        lost: share of the text that may be neither in the input nor in the labels.

    Raises:
        AssertionError: a promise is broken; the message says which.
    """
    contract = Contract(
        objective,
        text or ("pairs" if objective.reads_pairs else "plain"),
        noise,
        not objective.reads_stream if padded is None else padded,
        shows_answers,
        lost,
    )
    for check in CHECKS:
        check(contract)
    for architecture in objective.supported_architectures():
        check_loss_is_a_sum(contract, architecture)


def check_description(contract: Contract) -> None:
    """The class describes itself: name, title, paper, a sentence, architectures, and each option in words."""
    cls = type(contract.objective)
    _check(vars(cls).get("name") == cls.name, "the class has a `name` of its own")
    _check(bool(cls.title), "`title` names it for people")
    _check("https://" in cls.paper, "`paper` holds an address")
    _check(cls.summary.endswith("."), "`summary` is a sentence that ends with a full stop")
    supported = set(contract.objective.supported_architectures())
    _check(bool(supported) and supported <= set(cls.architectures), "it supports some of its class's `architectures`")
    for name, field in cls.model_fields.items():
        _check(bool(field.description), f"the option {name!r} has a description")
    again = cls.parse(contract.objective.model_dump(mode="json"))
    _check(again == contract.objective, "it is equal to itself written down and read again")


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
            _check(np.array_equal(getattr(rows, name), value), f"`collate` leaves the rows' {name} as they are")
        _check(bool((rng.keys == keys).all()), "`collate` leaves the keys of the random numbers as they are")


def check_rows_are_independent(contract: Contract) -> None:
    """A row comes out the same alone, in any batch, and at any place of a batch."""
    together = by_example(contract.read(24))
    _check(len(together) == 24, "each position of training is one row")
    for which in (np.array([5]), np.arange(24)[::-1].copy(), np.array([3, 17, 4]), np.arange(7, 20)):
        for example, row in by_example(contract.read(which)).items():
            _check(same_example(row, together[example]), "a row does not depend on the other rows of its batch")


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
        _check(equal, f"{how} give the same rows as one")


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
        _check(not differ(first, collated(rows, 1, 0)).any(), "the same seed, epoch and row give the same batch")
        for seed, epoch in ((1, 1), (2, 0), (0, 1)):
            changed += int(np.count_nonzero(differ(first, collated(rows, seed, epoch))))
            total += len(rows)
    _check(changed >= contract.noise * total, f"{contract.noise:.0%} of the rows differ by epoch and seed")


def check_no_global_state(contract: Contract) -> None:
    """Random choices come from the counter-based generator alone, not from numpy's global one."""
    state = np.random.get_state()  # noqa: NPY002 - the state that must not matter
    try:
        np.random.seed(0)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
        first = by_example(contract.read(8))
        after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
        _check(bool((after == before).all()), "numpy's global generator is not used")
        np.random.seed(1)  # noqa: NPY002
        second = by_example(contract.read(8))
        equal = all(same_example(first[key], second[key]) for key in first)
        _check(equal, "numpy's global seed has no effect")
    finally:
        np.random.set_state(state)  # noqa: NPY002


def check_shapes(contract: Contract) -> None:
    """Batches are contiguous int32 arrays of the widths that `variants` declares."""
    variants = contract.objective.variants(contract.vocabulary, LENGTH)
    _check(
        [one.name for one in variants] == contract.objective.variant_names(), "`variant_names` are those of `variants`"
    )
    for rows, batch in contract.read(24):
        variant = variants[rows.variant]
        for name, array in arrays(batch).items():
            _check(array.dtype == (np.int64 if name == "example_ids" else np.int32), f"{name} is of type int32")
            _check(array.flags.c_contiguous, f"{name} is contiguous")
        _check(batch.input_ids.shape == (len(rows), variant.length), "input_ids are (rows, variant.length)")
        _check(variant.length <= LENGTH, "a row is no longer than it may be")
        if variant.decoder_length:
            shape = (len(rows), variant.decoder_length)
            _check(batch.decoder_labels.shape == shape, "decoder_labels are (rows, variant.decoder_length)")
            _check(batch.decoder_input_ids.shape == shape, "decoder_input_ids are (rows, variant.decoder_length)")
        else:
            _check(batch.labels.shape == batch.input_ids.shape, "labels have the shape of input_ids")
            _check(batch.decoder_input_ids is None, "a variant without decoder_length has no decoder_input_ids")
        _check(bool((batch.example_ids == rows.example_ids).all()), "example_ids are those of the rows, in order")


def check_blanks(contract: Contract) -> None:
    """The layout of a blank, if the objective declares one, holds the candidate, or shows where it is written."""
    vocabulary = contract.vocabulary
    left, candidate, right = (tuple(range(FIRST_TEXT + n, FIRST_TEXT + n + 2)) for n in (0, 2, 4))
    for architecture in contract.objective.supported_architectures():
        layout = contract.objective.blank_layout(vocabulary, architecture)
        if isinstance(layout, ContinuationLayout):
            _check(architecture != "encoder", "a candidate is written by a decoder")
            _check(len(layout.context(Blank(left, right))) > 0, "`context` holds at least one id")
        elif isinstance(layout, InPlaceLayout):
            shown = layout.row(Blank(left, right), candidate).tokens
            _check({*left, *candidate, *right} <= set(shown), "`row` holds the text and the candidate")
            opened = layout.row(Blank(left, right), (OPEN, OPEN))
            _check(not set(candidate) & set(opened.tokens), "`row` hides open places")
            columns = opened.columns
            _check(0 in columns and all(0 <= c < len(opened.tokens) for c in columns.values()), "`columns` are in it")


def check_measures(contract: Contract) -> None:
    """Each measure has a name of its own, a title and a sentence."""
    measures = contract.objective.measures
    _check(len({measure.name for measure in measures}) == len(measures), "measures have names of their own")
    _check(all(m.title and m.sentence.endswith(".") for m in measures), "measures are titled and explained")


def check_padding_of_full_rows(contract: Contract) -> None:
    """Full rows hold no padding, unless documents do not fill them exactly."""
    for _, batch in [] if contract.padded else contract.read(24):
        for segments in (batch.segment_ids, batch.decoder_segment_ids):
            _check(segments is None or bool((segments >= 0).all()), "full rows have no padding")
        _check(not (batch.input_ids == contract.vocabulary.pad).any(), "full rows have no padding token")


def check_counts(contract: Contract) -> None:
    """`counts` are integers, and those of "lm" are the labelled positions."""
    for _, batch in contract.read(24):
        counts = contract.objective.counts(batch)
        _check(all(type(count) is int and count >= 0 for count in counts.values()), "`counts` are integers, at least 0")
        if "lm" in counts:
            labelled = int(np.count_nonzero(batch.targets != IGNORE))
            _check(counts["lm"] == labelled > 0, 'counts["lm"] is the number of labelled positions')


def check_source_is_recoverable(contract: Contract) -> None:
    """Input and labels together hold every token of the text that was read, and nothing else."""
    lost = total = 0
    for rows, batch in contract.read(48):
        for source, found in zip(source_tokens(rows), found_tokens(batch), strict=True):
            lost += len(source - found)
            total += len(source)
            if not contract.shows_answers:  # random replacements come from anywhere
                _check(found <= source, "input and labels hold no token from elsewhere")
    _check(lost <= contract.lost * total, f"input and labels hold the text but for {contract.lost:.0%} of it")


def check_labels(contract: Contract) -> None:
    """No label on padding, in training or at the end of a pass, nor on special tokens of an input that hides text."""
    from pretextlm.training.validation import evaluation_batches

    objective, vocabulary = contract.objective, contract.vocabulary
    reader = objective.reader(contract.split, vocabulary, LENGTH)
    for batch in evaluation_batches(reader, objective, vocabulary, 10**6, seed=5):
        for labels, segments in ((batch.labels, batch.segment_ids), (batch.decoder_labels, batch.decoder_segment_ids)):
            if labels is not None and segments is not None:
                _check(bool((labels[segments < 0] == IGNORE).all()), "no label is on padding")
            if labels is not None:
                _check(bool(((labels == IGNORE) | (labels >= 0)).all()), "a label is an id or IGNORE")
                _check(not (labels == vocabulary.pad).any(), "no label is the padding token")
        if batch.labels is not None and batch.attention == "bidirectional":
            on_text = batch.labels[batch.labels != IGNORE] >= FIRST_TEXT
            _check(bool(on_text.all()), "no label is a special token where the input hides text")


def check_padding_is_unseen(contract: Contract) -> None:
    """No position that predicts attends to padding, through any number of layers."""
    from pretextlm.training.validation import evaluation_batches

    reader = contract.objective.reader(contract.split, contract.vocabulary, LENGTH)
    for batch in evaluation_batches(reader, contract.objective, contract.vocabulary, 10**6, seed=5):
        if batch.segment_ids is None or not (batch.segment_ids < 0).any():
            continue
        one = _row(batch, int((batch.segment_ids < 0).any(axis=1).argmax()))
        seen, _ = reachable(one)
        predicts = one.targets[0] != IGNORE
        _check(not seen[predicts][:, one.segment_ids[0] < 0].any(), "no position that predicts sees padding")


def check_no_leak(contract: Contract) -> None:
    """A position that predicts a token sees no position that holds it, through any number of layers."""
    for _, batch in [] if contract.shows_answers else contract.read(12):
        for row in range(len(batch.input_ids)):
            one = _row(batch, row)
            inputs, decoder = reachable(one)
            labels = one.targets[0]
            answers = (labels >= FIRST_TEXT)[:, None]
            seen = inputs & answers & (one.input_ids[0][None] == labels[:, None])
            _check(not seen.any(), "no answer can be read off the input")
            if decoder is not None:
                seen = decoder & answers & (one.decoder_input_ids[0][None] == labels[:, None])
                _check(not seen.any(), "no answer can be read off the decoder's input")


CHECKS: tuple[Callable[[Contract], None], ...] = (
    check_description,
    check_pure,
    check_rows_are_independent,
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


def check_loss_is_a_sum(contract: Contract, architecture: Architecture) -> None:
    """The loss terms and gradients of a step do not depend on how it is cut into batches.

    Each term's total is the sum over the batches, its count the one that `counts` gives, and all are finite.
    """
    import torch

    from pretextlm.model.config import ModelConfig

    objective = contract.objective
    config = ModelConfig.parse(
        {
            "architecture": architecture,
            "vocab_size": contract.vocabulary.size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "type_vocab_size": objective.num_token_types(),
        }
    )
    model = _small_model(config, objective)
    forward = _forward(model, objective, config)
    complete = [batch for _, batch in contract.read(8)]
    single = [_row(batch, row) for batch in complete for row in range(len(batch.input_ids))]
    results = []
    for cut in (complete, single):
        model.zero_grad()
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for batch in cut:
            expected = objective.counts(batch)
            terms = objective.step(forward, batch)
            _check({name: term.count for name, term in terms.items()} == expected, "terms have the counts of `counts`")
            for name, term in terms.items():
                _check(bool(torch.isfinite(term.total)), f"the term {name!r} is finite")
                _check(bool(term.count or not term.total.item()), f"the term {name!r} is 0 without targets")
                totals[name] = totals.get(name, 0.0) + term.total.item()
                counts[name] = counts.get(name, 0) + term.count
            loss: Tensor = torch.stack([term.coefficient * term.total / 1000 for term in terms.values()]).sum()
            loss.backward()  # type: ignore[no-untyped-call]
        results.append((totals, counts, {n: p.grad for n, p in model.named_parameters()}))
    (totals, counts, gradients), (other_totals, other_counts, other_gradients) = results
    _check(counts == other_counts, "counts do not depend on how a step is cut")
    for name, total in totals.items():
        close = abs(total - other_totals[name]) <= 1e-5 * abs(other_totals[name])
        _check(close, f"the term {name!r} does not depend on how a step is cut")
    for name, gradient in gradients.items():
        other = other_gradients[name]
        if gradient is None or other is None:
            _check(gradient is None and (other is None or not other.any()), f"{name} has a gradient however cut")
        else:
            _check(torch.allclose(gradient, other, rtol=1e-4, atol=1e-6), f"{name}'s gradient is that of the sum")


def example_vocabulary(size: int = 6000) -> Vocabulary:
    """Returns a vocabulary with special ids out of order, sentinels counting down, and text from FIRST_TEXT on."""
    named = dict(zip(NAMED, (3, 1, 5, 0, 2, 6, 4), strict=True))
    further = {token: 10 + i for i, token in enumerate(FURTHER)}
    sentinels = {sentinel(i): FIRST_TEXT - 1 - i for i in range(120)}
    vocabulary = Vocabulary.resolve(named | further | sentinels, size)
    return dataclasses.replace(vocabulary, make_token_splits=lambda: TokenSplits.of(_one_character_each(vocabulary)))


def _one_character_each(vocabulary: Vocabulary) -> list[list[tuple[list[int], list[int]]]]:
    """Returns the halves of every token of text, which is one character and so is only ever cut before it."""
    return [[] if special else [([], [token])] for token, special in enumerate(vocabulary.is_special)]


def unique_split(vocabulary: Vocabulary, plain: int = 0, pairs: int = 0, seed: int = 0) -> Split:
    """Returns documents of several sentences, then pairs; no token of them all occurs twice.

    Args:
        vocabulary: from which the tokens are.
        plain: number of plain documents.
        pairs: number of documents of two parts.
        seed: of the lengths and the order of the tokens.
    """
    rng = np.random.default_rng(seed)
    sentences = [rng.integers(1, 14, int(n)) for n in rng.integers(1, 12, plain)]
    sentences += [rng.integers(2, 18, 2) for _ in range(pairs)]
    lengths = np.array([int(part.sum()) for part in sentences])
    total = int(lengths.sum())
    assert FIRST_TEXT + total <= vocabulary.size
    tokens = rng.permutation(np.arange(FIRST_TEXT, FIRST_TEXT + total)).astype(np.uint16)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(sentences))])[:-1]
    words = rng.random(total) < 0.6
    words[starts] = True
    return Split(
        tokens=tokens,
        documents=np.concatenate([[0], np.cumsum(lengths)]).astype(np.uint64),
        document_bytes=lengths.astype(np.uint32),
        document_sources=np.repeat([0, 1], [plain, pairs]).astype(np.uint32),
        sentences=starts.astype(np.uint64),
        word_bits=np.packbits(words, bitorder="little"),
        parts=(1, 2),
    )


def batches(
    objective: Objective, split: Split, vocabulary: Vocabulary, ordinals: NDArray[np.int64], seed: int = 1
) -> list[tuple[Rows, Batch]]:
    """Returns the rows at these positions of training with their batches; those of one variant together."""
    reader = objective.reader(split, vocabulary, LENGTH)
    numbers, epochs = reader.shuffled(ordinals, seed)
    draws = epochs % objective.noise_period if objective.noise_period else epochs
    found = []
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], epochs[group], seed)
        progress = np.minimum(ordinals[group] / 1000, 1.0) if objective.scheduled_noise else None
        rows = dataclasses.replace(rows, progress=progress)
        found.append((rows, objective.collate(rows, vocabulary, CounterRNG.of(seed, draws[group], rows.example_ids))))
    return found


def arrays(batch: Batch) -> dict[str, NDArray[Any]]:
    """Returns the arrays that a batch has, by name."""
    return {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name != "attention" and getattr(batch, f.name) is not None
    }


def by_example(found: Iterable[tuple[Rows | None, Batch]]) -> dict[int, Example]:
    """Returns example id → its rows of all arrays."""
    rows: dict[int, Example] = {}
    for _, batch in found:
        for place, example in enumerate(batch.example_ids.tolist()):
            _check(example not in rows, "example_ids tell rows apart")
            rows[example] = {name: array[place] for name, array in arrays(batch).items()} | {"kind": batch.attention}
    return rows


def same_example(one: Example, other: Example) -> bool:
    """Whether two rows are equal in all their arrays."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def reachable(batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Which positions of row 0 a predicting position depends on, through any number of layers.

    Returns:
        (Q, T) for the input row and, with a decoder, (Q, S) for the decoder's; Q are the positions that predict.
    """
    visible = visibility_of(batch)
    own = _closure(visible["input"])
    if "decoder" not in visible:
        return own, None
    decoder = _closure(visible["decoder"])
    through = (decoder.astype(int) @ visible["cross"].astype(int) @ own.astype(int)) > 0
    return through, decoder


def _closure(matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Transitive closure: A sees C in two layers if A sees B and B sees C, in four if …, until nothing is added."""
    reach = matrix | np.eye(len(matrix), dtype=bool)
    while True:
        further: NDArray[np.bool_] = (reach.astype(int) @ reach.astype(int)) > 0
        if (further == reach).all():
            return further
        reach = further


def source_tokens(rows: Rows) -> list[set[int]]:
    """Returns the text tokens of each row."""
    return [set(part[part >= FIRST_TEXT].tolist()) for part in np.split(rows.tokens, rows.offsets[1:-1])]


def found_tokens(batch: Batch) -> list[set[int]]:
    """Returns the text tokens of each row's inputs and labels together."""
    parts = [batch.input_ids, batch.labels, batch.decoder_input_ids, batch.decoder_labels, batch.shuffled_labels]
    joined = np.concatenate([part for part in parts if part is not None], axis=1)
    return [set(row[(row >= FIRST_TEXT) & (row != IGNORE)].tolist()) for row in joined]


def _row(batch: Batch, row: int) -> Batch:
    return batch.map(lambda array: array[row : row + 1].copy())


def _small_model(config: ModelConfig, objective: Objective) -> Transformer:
    import torch

    from pretextlm.model.transformer import Transformer

    model = Transformer(config, objective.heads(config))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def _forward(model: Transformer, objective: Objective, config: ModelConfig) -> Any:
    """Returns the forward pass, with a small random model in every frozen role, so that no run is needed."""
    import torch

    from pretextlm.objectives.causal import Causal
    from pretextlm.training.forward import Forward

    forward = Forward(model, Causal(), torch.device("cpu"), torch.float32)
    forward.models |= {role: _small_model(config, objective) for role in objective.frozen_models()}
    return forward


def _check(holds: bool, promise: str) -> None:
    if not holds:
        raise AssertionError(f"The objective breaks a promise: {promise}.")
