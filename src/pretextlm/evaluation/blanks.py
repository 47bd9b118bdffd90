"""The one ruler: the same blanks for every kind of model.

A word (sometimes two or three) is taken out of the middle of a sentence of held-out text. Each model, in the way it
was trained for, writes what it thinks is missing, and weighs the right word against nine others of the same number of
tokens and about the same frequency: a blind choice is right one time in ten. The blanks depend on the store and the
seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pretextlm.counter_rng import CounterRNG, permute
from pretextlm.data.store import Split, Store
from pretextlm.evaluation.cloze import Answer, Cloze, Filler, TokenTexts
from pretextlm.evaluation.phrases import MAX_TOKENS, PhraseTable, count_phrases
from pretextlm.metric import Metric, mean

DISTRACTORS = 9
NEIGHBOURS = 20
"""Phrases in the order of frequency are grouped by so many; distractors come from the answer's group.

Groups are fixed, not centred on the answer: in the middle of its distractors, the answer would rarely be the most
frequent of them, and a model that knows frequencies alone would do worse than chance.
"""

LEFT_TOKENS, RIGHT_TOKENS = 40, 24
"""The text that is shown on either side: little enough for any model, so that all see the same."""

PHRASE_SHARE = 0.2
"""Share of the blanks that hide two or three words."""

SHORTEST, LONGEST = 8, 80
"""Tokens of a sentence that may get a blank."""

EDGE_WORDS = 2
"""Words at either end of a sentence that stay."""

WORDS, PLACE, OTHERS, ORDER = range(4)
"""Streams of random numbers: how many words, which, the distractors, and the place of the right choice."""

_KEYS_AT_ONCE = 256


@dataclass(frozen=True)
class Blank:
    """A cloze with its solution.

    Attributes:
        cloze: the text around it.
        choices: token ids of ten answers to choose from.
        right: index of the right one.
    """

    cloze: Cloze
    choices: tuple[tuple[int, ...], ...]
    right: int

    @property
    def answer(self) -> tuple[int, ...]:
        return self.choices[self.right]


@dataclass(frozen=True)
class Results:
    """What a model made of the blanks.

    Attributes:
        blanks: B blanks.
        answers: the model's own best answer to each.
        scores: for each, the log-likelihood of its choices in nats.
    """

    blanks: Sequence[Blank]
    answers: Sequence[Answer]
    scores: Sequence[NDArray[np.float64]]


def make_blanks(store: Store, texts: TokenTexts, count: int, seed: int) -> list[Blank]:
    """Up to `count` blanks, no two in one sentence; fewer where the held-out text has not as many."""
    tables = {words: count_phrases(store.train, texts, words) for words in (1, 2, 3)}
    blanks: list[Blank] = []
    for sentence, rng in _sentences(store.validation, seed):
        if len(blanks) == count:
            break
        blank = _blank(store.validation, sentence, rng, tables, texts)
        if blank is not None:
            blanks.append(blank)
    return blanks


def _sentences(split: Split, seed: int) -> Iterator[tuple[int, CounterRNG]]:
    """Every sentence of fitting length once, in an order drawn by the seed, each with its own random numbers."""
    total = len(split.sentences)
    lengths = np.diff(split.sentences.astype(np.int64), append=split.num_tokens)
    for start in range(0, total, _KEYS_AT_ONCE):
        numbers = permute(np.arange(start, min(start + _KEYS_AT_ONCE, total)), total, seed, 0)
        numbers = numbers[(lengths[numbers] >= SHORTEST) & (lengths[numbers] <= LONGEST)]
        for number, key in zip(numbers.tolist(), CounterRNG.of(seed, 0, numbers).keys, strict=True):
            yield number, CounterRNG(np.array([key]))


def _blank(
    split: Split, sentence: int, rng: CounterRNG, tables: dict[int, list[PhraseTable]], texts: TokenTexts
) -> Blank | None:
    """A blank in this sentence, if it has a phrase that the tables know with enough others like it."""
    begin = int(split.sentences[sentence])
    end = int(split.sentences[sentence + 1]) if sentence + 1 < len(split.sentences) else split.num_tokens
    starts = begin + np.flatnonzero(split.word_starts(np.arange(begin, end)))
    draw = float(rng.uniform(WORDS, 1)[0, 0])
    words = 1 if draw >= PHRASE_SHARE else 2 if draw >= PHRASE_SHARE / 2 else 3
    ends = np.append(starts, end)
    places = np.arange(EDGE_WORDS, len(starts) - words - EDGE_WORDS + 1)
    for place in places[np.argsort(rng.uniform(PLACE, len(places))[0])].tolist():
        start, stop = int(ends[place]), int(ends[place + words])
        if stop - start > MAX_TOKENS:
            continue
        answer = tuple(split.tokens[start:stop].astype(int).tolist())
        others = _distractors(tables[words][stop - start - 1], answer, rng, texts)
        if others:
            right = int(rng.integers(ORDER, 1, DISTRACTORS + 1)[0, 0])
            return Blank(_window(split, start, stop, texts), (*others[:right], answer, *others[right:]), right)
    return None


def _distractors(
    table: PhraseTable, answer: tuple[int, ...], rng: CounterRNG, texts: TokenTexts
) -> list[tuple[int, ...]]:
    """Nine others of the same group of frequency; none where there are not enough."""
    place = table.places.get(answer)
    if place is None:
        return []
    low = max(0, min(place - place % NEIGHBOURS, len(table.texts) - NEIGHBOURS))
    near = np.arange(low, min(low + NEIGHBOURS, len(table.texts)))
    begins = texts.begins_word
    seen, others = {table.texts[place].casefold()}, []
    for other in near[np.argsort(rng.uniform(OTHERS, len(near))[0])].tolist():
        tokens, shown = tuple(table.tokens[other].tolist()), table.texts[other].casefold()
        if shown not in seen and begins[tokens[0]] == begins[answer[0]]:
            seen.add(shown)
            others.append(tokens)
        if len(others) == DISTRACTORS:
            return others
    return []


def _window(split: Split, start: int, stop: int, texts: TokenTexts) -> Cloze:
    """The text on either side of tokens start … stop-1, within their document, cut at words."""
    document = int(np.searchsorted(split.documents, start, side="right")) - 1
    first, after = int(split.documents[document]), int(split.documents[document + 1])
    low, high = max(first, start - LEFT_TOKENS), min(after, stop + RIGHT_TOKENS)
    if low > first:
        low += int(np.argmax(split.word_starts(np.arange(low, start))))
    if high < after:
        cuts = np.flatnonzero(split.word_starts(np.arange(stop, high + 1)))
        high = stop + int(cuts[-1]) if len(cuts) and cuts[-1] else high
    return Cloze(
        left=tuple(split.tokens[low:start].astype(int).tolist()),
        right=tuple(split.tokens[stop:high].astype(int).tolist()),
        begins=low == first,
        ends=high == after,
        new_word=bool(texts.begins_word[int(split.tokens[start])]),
    )


def answer_blanks(filler: Filler, blanks: Sequence[Blank]) -> Results:
    """Let a model answer and choose, all blanks in batches."""
    clozes = [blank.cloze for blank in blanks]
    answers = [found[0] for found in filler.answers(clozes, 1, MAX_TOKENS)]
    return Results(blanks, answers, filler.scores(clozes, [blank.choices for blank in blanks]))


def blank_metrics(results: Results, texts: TokenTexts) -> dict[str, Metric]:
    """Exact match, choice accuracy (a blind choice: 0.1), and the log-likelihood of the right word over the choices."""
    rights = [blank.right for blank in results.blanks]
    normalised = [scores - np.logaddexp.reduce(scores) for scores in results.scores]
    exact = [
        texts.decode(answer.tokens).strip() == texts.decode(blank.answer).strip()
        for answer, blank in zip(results.answers, results.blanks, strict=True)
    ]
    chosen = [int(scores.argmax()) == right for scores, right in zip(results.scores, rights, strict=True)]
    logs = [float(scores[right]) for scores, right in zip(normalised, rights, strict=True)]
    return {
        "blank_exact_match": mean(exact, "share", "higher"),
        "blank_choice_accuracy": mean(chosen, "share", "higher"),
        "blank_log_likelihood": mean(logs, "nats", "higher"),
    }


def blank_samples(results: Results, texts: TokenTexts) -> list[dict[str, Any]]:
    """One line of samples.jsonl per blank: `correct` says whether the model wrote the word, `chosen` what it picked."""
    samples = []
    for blank, answer, scores in zip(results.blanks, results.answers, results.scores, strict=True):
        choices = [texts.decode(choice).strip() for choice in blank.choices]
        written, expected = texts.decode(answer.tokens).strip(), choices[blank.right]
        samples.append(
            {
                "kind": "blank",
                "text": shown(blank, texts),
                "answer": written,
                "expected": expected,
                "correct": written == expected,
                "chosen": choices[int(scores.argmax())],
                "choices": choices,
                "scores": [round(float(score), 4) for score in scores],
            }
        )
    return samples


def shown(blank: Blank, texts: TokenTexts) -> str:
    """The text with ____ for what is missing."""
    left = blank.cloze.left
    before, filled = texts.decode(left), texts.decode([*left, *blank.answer])
    after = texts.decode([*left, *blank.answer, *blank.cloze.right])[len(filled) :]
    return f"{before}{' ' if blank.cloze.new_word else ''}____{after}".strip()
