"""Each kind of model fills blanks in its own way; every score equals one worked out by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpus import WORDS, bigram_filler, random_filler
from test_scoring import alone

from pretextlm.batch import IGNORE, Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import Answer, Cloze
from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.scoring import score_batch

KINDS = [("causal", {}), ("masked", {}), ("span_corruption", {}), ("span_corruption", {"layout": "prefix"})]


def clozes(filler, count: int = 4) -> list[Cloze]:
    rng = np.random.default_rng(3)
    text = lambda low, high: tuple(rng.choice(filler.vocabulary.ordinary, rng.integers(low, high)).tolist())  # noqa: E731
    return [
        Cloze(text(1, 6), text(0, 6), (text(1, 3),) * (i % 2), begins=i != 1, ends=i != 2, new_word=i == 3)
        for i in range(count)
    ]


def one_by_one(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    """The score as the class's docstring defines it, from single forward passes."""
    v, name = filler.vocabulary, filler.objective.name
    if name == "causal":
        end = [v.eos] if cloze.ends and not cloze.later else []
        begin = [v.bos] if cloze.begins else []
        return alone(filler, None, [*begin, *cloze.left], [*choice, *cloze.right, *end])
    if name == "span_corruption":
        source = [*cloze.left]
        for sentinel, piece in zip(v.sentinels, [cloze.right, *cloze.later], strict=False):
            source += [sentinel, *piece]
        start = [v.sentinels[0]] if filler.model.encoder is None else [v.pad, v.sentinels[0]]
        closings = [v.eos, *v.sentinels[1:]]
        ends = [alone(filler, [*source, v.eos], [*start, *choice], [closing]) for closing in closings]
        return alone(filler, [*source, v.eos], start, list(choice)) + np.logaddexp.reduce(ends)
    total = 0.0
    for place, token in enumerate(choice):
        hidden = [*choice[:place], *[v.mask] * (len(choice) - place)]
        row = [v.cls, *cloze.left, *hidden, *cloze.right]
        for piece in cloze.later:
            row += [v.mask, *piece]
        row += [v.sep] if cloze.ends else []
        labels = np.full((1, len(row)), IGNORE, np.int32)
        labels[0, 1 + len(cloze.left) + place] = token
        total += score_batch(filler.model, Batch(input_ids=np.array([row], np.int32), labels=labels)).log_probabilities[
            0
        ]
    return total


@pytest.mark.parametrize(("objective", "options"), KINDS)
def test_scores_of_choices_equal_brute_force(store, objective, options):
    filler = random_filler(objective, store, **options)
    some = clozes(filler)
    choices = [[(130,), (131, 132), (133, 134, 135)], [(140, 141)], [(150,), (151,)], [(160, 161, 162)]]
    for cloze, many, found in zip(some, choices, filler.scores(some, choices), strict=True):
        assert found == pytest.approx([one_by_one(filler, cloze, choice) for choice in many], abs=3e-4)


@pytest.mark.parametrize(("objective", "options"), KINDS)
def test_answers_are_the_same_alone_and_among_others(store, objective, options):
    filler = random_filler(objective, store, **options)
    some = clozes(filler, 6)
    together = filler.answers(some, 3, 3)
    for cloze, found in zip(some, together, strict=True):
        alone_found = filler.answers([cloze], 3, 3)[0]
        assert [a.tokens for a in alone_found] == [a.tokens for a in found]
        assert [a.score for a in alone_found] == pytest.approx([a.score for a in found], abs=3e-4)
        assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
        assert len({a.tokens for a in found}) == 3
        assert not any(filler.banned[list(a.tokens)].any() for a in found)
    assert all(filler.texts.begins_word[a.tokens[0]] for a in together[3])


@pytest.mark.parametrize(("objective", "options"), KINDS[1:])
def test_the_best_single_token_is_found(store, objective, options):
    filler = random_filler(objective, store, **options)
    cloze = clozes(filler)[0]
    allowed = np.flatnonzero(~filler.banned).tolist()
    scores = filler.scores([cloze], [[(token,) for token in allowed]])[0]
    best = np.argsort(-scores)[:3]
    found = filler.answers([cloze], 3, 1)[0]
    if objective == "masked":
        assert [a.tokens[0] for a in found] == [allowed[i] for i in best]
        assert [a.score for a in found] == pytest.approx(scores[best], abs=1e-4)
    else:  # the beam follows the likeliest tokens, then looks at how well each ends
        assert found[0].score == pytest.approx(scores[allowed.index(found[0].tokens[0])], abs=1e-4)


def test_a_causal_answer_is_weighed_with_the_text_after_it(store):
    filler = random_filler("causal", store)
    cloze = clozes(filler)[0]
    found: list[Answer] = filler.answers([cloze], 5, 2)[0]
    expected = filler.scores([cloze], [[a.tokens for a in found]])[0]
    assert [a.score for a in found] == pytest.approx(expected, abs=1e-4)


def test_a_masked_model_takes_as_many_tokens_as_there_are_masks(store):
    filler = random_filler("masked", store)
    cloze = Cloze((120, 121), (122,), length=3)
    assert {len(a.tokens) for a in filler.answers([cloze], 4, 1)[0]} == {3}
    free = Cloze((120, 121), (122,))
    assert {len(a.tokens) for a in filler.answers([free], 400, 2)[0]} == {1, 2}


def test_a_masked_model_fills_the_surest_place_first(store):
    filler = random_filler("masked", store)
    cloze = Cloze((120, 121), (122,), length=2)
    (answer,) = filler.answers([cloze], 1, 1)[0]
    logs = np.stack([_distribution(filler, cloze, (-1, -1), place) for place in (0, 1)])
    first = int(logs.max(axis=1).argmax())
    filled = [-1, -1]
    filled[first] = int(logs[first].argmax())
    assert answer.tokens[first] == filled[first]
    second = _distribution(filler, cloze, tuple(filled), 1 - first)
    assert answer.tokens[1 - first] == int(second.argmax())
    assert answer.score == pytest.approx(logs[first].max() + second.max(), abs=1e-4)


def _distribution(filler, cloze, filled, place) -> np.ndarray:
    row = np.array([filler.row(cloze, filled)], np.int32)
    labels = np.full_like(row, IGNORE)
    labels[0, 1 + len(cloze.left) + place] = 0
    from pretextlm.model.inputs import prepare

    with torch.inference_mode():
        batch = Batch(input_ids=row, labels=labels)
        outputs = filler.model(prepare(batch, filler.model.config, torch.device("cpu"), torch.float32))
        logs = outputs.logits_NV.log_softmax(dim=1)[0].numpy().copy()
    logs[filler.banned] = -np.inf
    return logs


def test_fill_puts_the_best_answers_into_the_text(store):
    filler = bigram_filler(store)
    text = f"{WORDS[3]} {WORDS[4]} ____ {WORDS[6]} {WORDS[7]} [MASK] [MASK] {WORDS[10]} {WORDS[11]}."
    filled = fill(filler, text, top=3)
    assert filled.text == " ".join(WORDS[3:12]) + "."
    assert [blank.answers[0][0] for blank in filled.blanks] == [WORDS[5], f"{WORDS[8]} {WORDS[9]}"]
    assert all(len(blank.answers) == 3 for blank in filled.blanks)


@pytest.mark.parametrize(("objective", "options"), KINDS)
@pytest.mark.parametrize(
    "text", ["____", "____ a", "a ____", "[MASK]", "____ ____", "a[MASK]b [MASK][MASK]c ____.", "라면 ____ 먹"]
)
def test_blanks_may_stand_anywhere(store, objective, options, text):
    filled = fill(random_filler(objective, store, **options), text, top=2, max_tokens=2)
    assert "____" not in filled.text
    assert "[MASK]" not in filled.text
    assert all(blank.answers for blank in filled.blanks)


def test_a_text_without_blanks_or_with_too_many_is_refused(store):
    filler = random_filler("span_corruption", store)
    with pytest.raises(UserError, match="no blank"):
        fill(filler, "Nothing is missing ___ here.")
    with pytest.raises(UserError, match="sentinels"):
        fill(filler, "____ a " * 21)
    with pytest.raises(UserError, match="the most is"):
        fill(filler, "____ a " * 65)
