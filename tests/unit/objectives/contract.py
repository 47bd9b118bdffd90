"""Every objective under the settings that change what it does, and a text in which every token is unique.

Where each token occurs once, a label names the place in the text it came from: whether the source can be recovered,
and whether an answer can be read off somewhere, are then plain questions about numbers.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.batch import IGNORE, Batch, Rows
from pretextlm.counter_rng import CounterRNG
from pretextlm.data.special_tokens import FURTHER, NAMED, sentinel
from pretextlm.data.store import Split
from pretextlm.data.token_splits import TokenSplits
from pretextlm.data.vocabulary import Vocabulary
from pretextlm.objectives.base import Objective
from pretextlm.objectives.preview.show import visibility_of
from pretextlm.objectives.registry import build

LENGTH = 48
FIRST_TEXT = 150


@dataclass(frozen=True)
class Case:
    """An objective with options, and what it promises.

    Attributes:
        draws: least share of the rows whose noise changes from epoch to epoch; 0 for one without noise.
        padded: full rows may hold padding, because documents or pairs do not fill them exactly.
        text: "plain" documents, "pairs" or "both".
        open_answers: its input shows answers on purpose (tokens left as they are, shuffled ones, a whole damaged text).
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    draws: float = 0.7
    padded: bool = False
    text: str = "plain"
    open_answers: bool = False

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())]).replace(" ", "")

    @property
    def objective(self) -> Objective:
        return build(self.name, self.options)


MASKS_ONLY = {"mask_share": 1.0, "random_share": 0.0}
TABLE = [
    {"name": "short", "mode": "[R]", "kind": "span", "rate": 0.2, "mean_span_length": 2.0, "weight": 0.75},
    {"name": "rest", "mode": "[S]", "kind": "prefix", "rate": 0.25, "weight": 0.25},
]
CASES = [
    Case("causal", draws=0),
    Case("causal", {"isolate": False}, draws=0),
    Case("masked", open_answers=True),
    Case("masked", MASKS_ONLY),
    Case("masked", {"count": "bernoulli", **MASKS_ONLY}),
    Case("masked", {"unit": "word", "rate": 0.3, **MASKS_ONLY}),
    Case("masked", {"unit": "word", "count": "bernoulli", **MASKS_ONLY}),
    Case("masked", {"unit": "ngram", **MASKS_ONLY}),
    Case("masked", {"unit": "span", "replace": "unit", **MASKS_ONLY}),
    Case("masked", {"predict": "next", **MASKS_ONLY}),
    Case("masked", {"rate": 0.3, "final_rate": 0.15, **MASKS_ONLY}),
    Case("masked", {"static_masks": 3, **MASKS_ONLY}),
    Case("span_corruption"),
    Case("span_corruption", {"rate": 0.5, "mean_span_length": 4.0}),
    Case("span_corruption", {"edges": "free", "final_sentinel": True}),
    Case("span_corruption", {"layout": "prefix"}),
    Case("prefix"),
    Case("prefix", {"layout": "encoder_decoder"}),
    Case("prefix", {"layout": "encoder_decoder", "rate": 0.25}),
    Case("denoisers", {"table": "ul2", "edges": "free"}),  # with "t5" edges, a single span is always last
    Case("denoisers", {"table": "ul2", "edges": "free", "layout": "prefix"}),
    Case("denoisers", {"table": "teaching", "edges": "free"}),
    Case("denoisers", {"table": TABLE}, draws=0.4),
    Case("masked_sequence", open_answers=True),
    Case("mixed_visibility", {"predict": "next", "masked": 1, "causal": 1}, draws=0.3, open_answers=True),
    Case("mixed_visibility", {"predict": "next", "prefix": 8.0, "right_to_left": 8.0}, draws=0.3, open_answers=True),
    Case("mixed_visibility", {"predict": "here"}, open_answers=True),
    Case("span_boundary", open_answers=True),
    Case("word_structure", open_answers=True),
    Case("replaced_token", {"inner": {"name": "masked", **MASKS_ONLY}}),
    Case("replaced_token", {"inner": {"name": "bimodal_code"}}, text="pairs", padded=True, open_answers=True),
    Case("distillation", {"teacher": "somewhere", "inner": {"name": "masked", **MASKS_ONLY}}),
    Case("distillation", {"teacher": "somewhere", "inner": {"name": "causal"}}, draws=0),
    Case("permutation"),
    Case("denoising", open_answers=True),
    Case("fill_in_middle", {"rate": 0.9}),
    Case("next_sentence", padded=True, open_answers=True),
    Case("next_sentence", {"classes": 3}, padded=True, open_answers=True),
    Case("sentence_order", padded=True, open_answers=True),
    Case("bimodal_code", padded=True, text="pairs", open_answers=True),
    Case("text_to_text", {"unsupervised": 0.0}, draws=0, padded=True, text="pairs"),
    Case("text_to_text", {"unsupervised": 0.5}, draws=0.3, padded=True, text="both"),
]


def vocabulary(size: int = 6000) -> Vocabulary:
    """Special ids out of order, sentinels counting down, then text from FIRST_TEXT on."""
    named = dict(zip(NAMED, (3, 1, 5, 0, 2, 6, 4), strict=True))
    further = {token: 10 + i for i, token in enumerate(FURTHER)}
    sentinels = {sentinel(i): FIRST_TEXT - 1 - i for i in range(120)}
    vocab = Vocabulary.resolve(named | further | sentinels, size)
    return dataclasses.replace(vocab, make_token_splits=lambda: TokenSplits.of(one_character_each(vocab)))


def one_character_each(vocab: Vocabulary) -> list[list[tuple[list[int], list[int]]]]:
    """The halves of every token of text, which is one character and so is only ever cut before it."""
    return [[] if special else [([], [token])] for token, special in enumerate(vocab.is_special)]


def unique_split(vocab: Vocabulary, plain: int = 0, pairs: int = 0, seed: int = 0) -> Split:
    """Documents of several sentences, then pairs; no token of them all occurs twice."""
    rng = np.random.default_rng(seed)
    sentences = [rng.integers(1, 14, int(n)) for n in rng.integers(1, 12, plain)]
    sentences += [rng.integers(2, 18, 2) for _ in range(pairs)]
    lengths = np.array([int(part.sum()) for part in sentences])
    total = int(lengths.sum())
    assert FIRST_TEXT + total <= vocab.size
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
    objective: Objective, split: Split, vocab: Vocabulary, ordinals: NDArray[np.int64], seed: int = 1
) -> list[tuple[Rows, Batch]]:
    """Rows at these places of training, as read and as corrupted; those of one variant together."""
    reader = objective.reader(split, vocab, LENGTH)
    numbers, epochs = reader.shuffled(ordinals, seed)
    draws = epochs % objective.noise_period if objective.noise_period else epochs
    found = []
    for group in reader.groups(numbers):
        rows = reader.read(numbers[group], epochs[group], seed)
        progress = np.minimum(ordinals[group] / 1000, 1.0) if objective.scheduled_noise else None
        rows = dataclasses.replace(rows, progress=progress)
        found.append((rows, objective.collate(rows, vocab, CounterRNG.of(seed, draws[group], rows.example_ids))))
    return found


def arrays(batch: Batch) -> dict[str, NDArray[Any]]:
    """The arrays that are there."""
    return {
        f.name: getattr(batch, f.name)
        for f in dataclasses.fields(batch)
        if f.name != "attention" and getattr(batch, f.name) is not None
    }


def reachable(batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Row 0: which positions of the input a predicting position can learn of, through any number of layers.

    Returns:
        (Q, T) for the input row and, with a decoder, (Q, S) for the decoder's; Q are the positions that predict.
    """
    sights = visibility_of(batch)
    own = _closure(sights["input"])
    if "decoder" not in sights:
        return own, None
    decoder = _closure(sights["decoder"])
    through = (decoder.astype(int) @ sights["cross"].astype(int) @ own.astype(int)) > 0
    return through, decoder


def _closure(matrix: NDArray[np.bool_]) -> NDArray[np.bool_]:
    reach = matrix | np.eye(len(matrix), dtype=bool)
    while True:
        further = (reach.astype(int) @ reach.astype(int)) > 0
        if (further == reach).all():
            return further
        reach = further


def source_tokens(rows: Rows) -> list[set[int]]:
    """The text tokens of each row."""
    cuts = rows.offsets[1:-1]
    return [set(part[part >= FIRST_TEXT].tolist()) for part in np.split(rows.tokens, cuts)]


def found_tokens(batch: Batch) -> list[set[int]]:
    """All text tokens of each row's inputs and labels together."""
    parts = [batch.input_ids, batch.labels, batch.decoder_input_ids, batch.decoder_labels, batch.shuffled_labels]
    joined = np.concatenate([part for part in parts if part is not None], axis=1)
    return [set(row[(row >= FIRST_TEXT) & (row != IGNORE)].tolist()) for row in joined]
