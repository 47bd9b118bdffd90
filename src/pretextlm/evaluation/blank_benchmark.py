"""The common blank-filling benchmark: the same blanks for every kind of model.

A word (sometimes two or three) is removed from the middle of a sentence of held-out text. Each model, in the way it was
trained, writes the missing word, and scores the right one against nine others of the same number of tokens and about
the same frequency: a random choice is right one time in ten. Within such a group a frequent word is hidden as often as
a rare one, so that always choosing the most frequent candidate is no better. The blanks depend on the store and the
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
from pretextlm.evaluation.phrases import MAX_TOKENS, PhraseTable, count_phrases
from pretextlm.evaluation.scores.choice import credit
from pretextlm.metric import Metric, mean
from pretextlm.scoring.blank import Blank, Candidate
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts
from pretextlm.scoring.window import fitting

DISTRACTORS = 9
NEIGHBOURS = 20
"""Phrases in order of frequency are grouped by so many; distractors come from the answer's group.

Groups are fixed, not centred on the answer: in the middle of its distractors, the answer would rarely be the most
frequent of them, and a model that knows frequencies alone would do worse than chance.
"""

LEFT_TOKENS, RIGHT_TOKENS = 40, 24
"""Tokens shown on either side: few enough for any model, so that all see the same."""

PHRASE_SHARE = 0.2
"""Share of the blanks that hide two or three words."""

MIN_SENTENCE_TOKENS, MAX_SENTENCE_TOKENS = 8, 80
"""Length of a sentence that may get a blank."""

EDGE_WORDS = 2
"""Words at either end of a sentence that are never hidden."""

WORDS, PLACE, OTHERS, ORDER, KEEP = range(5)
"""Streams of random numbers: how many words, which, the distractors, the place of the right candidate, and whether a
word is kept although it is frequent.
"""

_KEYS_PER_CHUNK = 256


@dataclass(frozen=True)
class Question:
    """A blank with its solution.

    Attributes:
        blank: the text around it.
        candidates: token ids of ten answers to choose from.
        answer_index: of the right one.
    """

    blank: Blank
    candidates: tuple[tuple[int, ...], ...]
    answer_index: int

    @property
    def answer(self) -> tuple[int, ...]:
        return self.candidates[self.answer_index]


@dataclass(frozen=True)
class Answers:
    """A model's answers.

    Attributes:
        questions: B questions.
        written: the model's own best candidate for each.
        scores: for each, the log-likelihoods of its candidates in nats.
    """

    questions: Sequence[Question]
    written: Sequence[Candidate]
    scores: Sequence[NDArray[np.float64]]


def make_questions(store: Store, texts: TokenTexts, count: int, seed: int) -> list[Question]:
    """Returns up to `count` questions, no two in one sentence; fewer where the held-out text does not have as many.

    They are in plain documents; only in a store without any, in the sources and targets of pairs, each by itself.
    """
    train, validation = (_plain_or_all(split) for split in (store.train, store.validation))
    tables = {words: count_phrases(train, texts, words) for words in (1, 2, 3)}
    questions: list[Question] = []
    for sentence, rng in _shuffled_sentences(validation, seed):
        if len(questions) == count:
            break
        question = _question(validation, sentence, rng, tables, texts)
        if question is not None:
            questions.append(question)
    return questions


def _plain_or_all(split: Split) -> Split:
    plain = split.plain()
    return plain if plain.num_tokens else split


def _shuffled_sentences(split: Split, seed: int) -> Iterator[tuple[int, CounterRNG]]:
    """Yields the number of every sentence of suitable length once, in random order, with random numbers of its own."""
    total = len(split.sentences)
    lengths = np.diff(split.sentences.astype(np.int64), append=split.num_tokens)
    for start in range(0, total, _KEYS_PER_CHUNK):
        numbers = permute(np.arange(start, min(start + _KEYS_PER_CHUNK, total)), total, seed, 0)
        numbers = numbers[(lengths[numbers] >= MIN_SENTENCE_TOKENS) & (lengths[numbers] <= MAX_SENTENCE_TOKENS)]
        for number, key in zip(numbers.tolist(), CounterRNG.of(seed, 0, numbers).keys, strict=True):
            yield number, CounterRNG(np.array([key]))


def _question(
    split: Split, sentence: int, rng: CounterRNG, tables: dict[int, list[PhraseTable]], texts: TokenTexts
) -> Question | None:
    """Returns a question in this sentence; None if it has no phrase in the tables with enough similar ones."""
    begin = int(split.sentences[sentence])
    end = int(split.sentences[sentence + 1]) if sentence + 1 < len(split.sentences) else split.num_tokens
    starts = begin + np.flatnonzero(split.word_starts(np.arange(begin, end)))
    draw = float(rng.uniform(WORDS, 1)[0, 0])
    words = 1 if draw >= PHRASE_SHARE else 2 if draw >= PHRASE_SHARE / 2 else 3
    # Word w covers the tokens borders[w] … borders[w + 1] - 1.
    borders = np.append(starts, end)
    places = np.arange(EDGE_WORDS, len(starts) - words - EDGE_WORDS + 1)
    kept = rng.uniform(KEEP, len(places))[0]
    for index in np.argsort(rng.uniform(PLACE, len(places))[0]).tolist():
        start, stop = int(borders[places[index]]), int(borders[places[index] + words])
        if stop - start > MAX_TOKENS:
            continue
        answer = tuple(split.tokens[start:stop].astype(int).tolist())
        table = tables[words][stop - start - 1]
        if kept[index] >= _kept_share(table, answer):
            continue
        others = _distractors(table, answer, rng, texts)
        if others:
            index = int(rng.integers(ORDER, 1, DISTRACTORS + 1)[0, 0])
            return Question(_window(split, start, stop, texts), (*others[:index], answer, *others[index:]), index)
    return None


def _group(table: PhraseTable, place: int) -> NDArray[np.int64]:
    """Returns the places of the phrases that are grouped with this one by frequency."""
    low = max(0, min(place - place % NEIGHBOURS, len(table.texts) - NEIGHBOURS))
    return np.arange(low, min(low + NEIGHBOURS, len(table.texts)))


def _kept_share(table: PhraseTable, answer: tuple[int, ...]) -> float:
    """Returns the share of a phrase's occurrences that may be hidden: count of the group's rarest / its own count.

    So each phrase of a group is hidden equally often, on average; 0 for a phrase that is not in the table.
    """
    place = table.places.get(answer)
    return 0.0 if place is None else float(table.counts[_group(table, place)[-1]] / table.counts[place])


def _distractors(
    table: PhraseTable, answer: tuple[int, ...], rng: CounterRNG, texts: TokenTexts
) -> list[tuple[int, ...]]:
    """Returns nine others of the same group of frequency; none where there are not enough."""
    place = table.places.get(answer)
    if place is None:
        return []
    near = _group(table, place)
    begins = texts.begins_word
    seen, others = {table.texts[place].casefold()}, []
    for other in near[np.argsort(rng.uniform(OTHERS, len(near))[0])].tolist():
        tokens, text = tuple(table.tokens[other].tolist()), table.texts[other].casefold()
        if text not in seen and begins[tokens[0]] == begins[answer[0]]:
            seen.add(text)
            others.append(tokens)
        if len(others) == DISTRACTORS:
            return others
    return []


def _window(split: Split, start: int, stop: int, texts: TokenTexts) -> Blank:
    """Returns the text on either side of tokens start … stop-1, cut at word boundaries, within their document.

    Of a pair, within its source or its target, which are its two "sentences".
    """
    document = int(np.searchsorted(split.documents, start, side="right")) - 1
    first, after = int(split.documents[document]), int(split.documents[document + 1])
    if split.pairs[document]:
        sentences = split.sentences.view(np.int64)
        borders = np.append(sentences[slice(*np.searchsorted(sentences, [first, after]))], after)
        part = int(np.searchsorted(borders, start, side="right")) - 1
        first, after = int(borders[part]), int(borders[part + 1])
    low, high = max(first, start - LEFT_TOKENS), min(after, stop + RIGHT_TOKENS)
    if low > first:  # skip the rest of a word that the window cuts
        low += int(np.argmax(split.word_starts(np.arange(low, start))))
    if high < after:
        cuts = np.flatnonzero(split.word_starts(np.arange(stop, high + 1)))
        high = stop + int(cuts[-1]) if len(cuts) and cuts[-1] else high
    return Blank(
        left=tuple(split.tokens[low:start].astype(int).tolist()),
        right=tuple(split.tokens[stop:high].astype(int).tolist()),
        starts_document=low == first,
        ends_document=high == after,
        starts_word=bool(texts.begins_word[int(split.tokens[start])]),
    )


def answer_questions(scorer: Scorer, questions: Sequence[Question]) -> Answers:
    """Returns a model's own candidates and its scores of the given ones, all questions in batches."""
    limit = scorer.model.config.positions.limit
    blanks = [fitting(question.blank, limit, MAX_TOKENS) for question in questions]
    written = [found[0] for found in scorer.best_candidates(blanks, 1, MAX_TOKENS)]
    return Answers(questions, written, scorer.log_likelihoods(blanks, [question.candidates for question in questions]))


def blank_metrics(answers: Answers, texts: TokenTexts) -> dict[str, Metric]:
    """Returns exact match, choice accuracy (at random: 0.1), and the right word's log-probability in the choice."""
    rights = [question.answer_index for question in answers.questions]
    normalised = [scores - np.logaddexp.reduce(scores) for scores in answers.scores]
    exact = [
        texts.decode(written.tokens).strip() == texts.decode(question.answer).strip()
        for written, question in zip(answers.written, answers.questions, strict=True)
    ]
    chosen = [credit(scores, {right}) for scores, right in zip(answers.scores, rights, strict=True)]
    logs = [float(scores[right]) for scores, right in zip(normalised, rights, strict=True)]
    return {
        "blank_exact_match": mean(exact, "share", "higher"),
        "blank_choice_accuracy": mean(chosen, "share", "higher"),
        "blank_log_likelihood": mean(logs, "nats", "higher"),
    }


def blank_samples(answers: Answers, texts: TokenTexts) -> list[dict[str, Any]]:
    """Returns a line of samples.jsonl per question.

    `correct` says whether the model wrote the word, `chosen` is the candidate that it scores highest.
    """
    samples = []
    for question, own, scores in zip(answers.questions, answers.written, answers.scores, strict=True):
        choices = [texts.decode(candidate).strip() for candidate in question.candidates]
        written, expected = texts.decode(own.tokens).strip(), choices[question.answer_index]
        samples.append(
            {
                "kind": "blank",
                "text": text_with_blank(question, texts),
                "answer": written,
                "expected": expected,
                "correct": written == expected,
                "chosen": choices[int(scores.argmax())],
                "choices": choices,
                "scores": [round(float(score), 4) for score in scores],
            }
        )
    return samples


def text_with_blank(question: Question, texts: TokenTexts) -> str:
    """Returns the text with ____ in place of the hidden word."""
    blank = question.blank
    before, filled = texts.decode(blank.left), texts.decode([*blank.left, *question.answer])
    after = texts.decode([*blank.left, *question.answer, *blank.right])[len(filled) :]
    return f"{before}{' ' if blank.starts_word else ''}____{after}".strip()
