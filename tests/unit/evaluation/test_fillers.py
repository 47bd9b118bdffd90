"""Each kind of model fills blanks in its own way; every score equals one worked out by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpus import WORDS, bigram_filler, random_filler, random_model
from test_scoring import alone

from pretextlm.batch import IGNORE, Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.cloze import FILLERS, Answer, Cloze, TokenTexts, can_fill, filler
from pretextlm.evaluation.fill import fill
from pretextlm.evaluation.scoring import score_batch
from pretextlm.model.model_inputs import prepare
from pretextlm.objectives.registry import build

pytestmark = pytest.mark.slow

KINDS = [
    ("causal", {}),
    ("masked", {}),
    ("span_corruption", {}),
    ("span_corruption", {"layout": "prefix"}),
    ("prefix", {}),
    ("prefix", {"layout": "encoder_decoder"}),
    ("fill_in_middle", {}),
    ("fill_in_middle", {"suffix_first": 0.0}),
    ("denoisers", {}),
    ("denoisers", {"table": "teaching", "layout": "prefix"}),
    ("denoisers", {"modes": False}),
    ("text_to_text", {}),
    ("text_to_text", {"denoiser": "denoisers"}),
    ("masked", {"predict": "next"}),
    ("mixed_visibility", {}),
    ("mixed_visibility", {"masked": 0}),
    ("mixed_visibility", {"predict": "here"}),
    ("next_sentence", {}),
    ("word_structure", {}),
    ("span_boundary", {}),
    ("bimodal_code", {}),
    ("replaced_token", {}),
    ("replaced_token", {"sharing": "gradient_disentangled"}),
    ("permutation", {}),
    ("masked_sequence", {}),
    ("masked_sequence", {"rate": 0.9}),
    ("denoising", {}),
    ("denoising", {"noise": "masking"}),
    ("denoising", {"noise": "deletion"}),
]
ids = lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value  # noqa: E731
each_kind = pytest.mark.parametrize(("objective", "options"), KINDS, ids=ids)
LOCAL = [kind for kind in KINDS if build(*kind).way_of_filling() in ("masked", "permutation")]
"""Kinds whose answers are scored by the chain rule, place by place."""


def clozes(filler, count: int = 4) -> list[Cloze]:
    rng = np.random.default_rng(3)
    text = lambda low, high: tuple(rng.choice(filler.vocabulary.ordinary, rng.integers(low, high)).tolist())  # noqa: E731
    return [
        Cloze(text(1, 6), text(0, 6), (text(1, 3),) * (i % 2), begins=i != 1, ends=i != 2, new_word=i == 3)
        for i in range(count)
    ]


def total(filler, **arrays) -> float:
    """log p of a row's labels."""
    attention = arrays.pop("attention", "bidirectional")
    batch = Batch(attention=attention, **{k: np.array([v], np.int32) for k, v in arrays.items()})
    return float(score_batch(filler.model, batch).log_probabilities.sum())


def behind(filler, cloze: Cloze, mask: int | None = None) -> list[int]:
    """The text after the blank with something for further blanks."""
    row = [*cloze.right]
    for piece in cloze.later:
        row += [*([] if mask is None else [mask]), *piece]
    return row


def as_continuation(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    end = [v.eos] if cloze.ends and not cloze.later else []
    begin = [v.bos] if cloze.begins else []
    return alone(filler, None, [*begin, *cloze.left], [*choice, *cloze.right, *end])


def as_prefix(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    if filler.model.encoder is not None:
        return alone(filler, [*cloze.left, v.eos], [v.pad], [*choice, *(cloze.right or [v.eos])])
    shown = [*([v.bos] if cloze.begins else []), *cloze.left]
    rest = [*choice, *cloze.right, *([v.eos] if cloze.ends and not cloze.later else [])]
    labels = [IGNORE] * (len(shown) - 1) + rest
    prefix = [len(shown)] * len(labels)
    return total(filler, input_ids=[*shown, *rest][:-1], labels=labels, prefix=prefix, attention="prefix")


def as_middle(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    prefix, suffix, middle = (v.id_of(f"<fim_{part}>") for part in ("prefix", "suffix", "middle"))
    head = [v.bos] if cloze.begins else []
    row = [*head, prefix, *cloze.left, suffix, *cloze.right, middle]
    if filler.objective.suffix_first:
        row = [*head, prefix, suffix, *cloze.right, middle, *cloze.left]
    return alone(filler, None, row, [*choice, v.eos])


def as_span(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    mode = []
    if filler.objective.name == "denoisers" and filler.objective.modes:
        mode = [v.id_of("[NLU]" if len(filler.objective.table) == 7 else "[R]")]
    source = [*mode, *cloze.left]
    for sentinel, piece in zip(v.sentinels, [cloze.right, *cloze.later], strict=False):
        source += [sentinel, *piece]
    start = [v.sentinels[0]] if filler.model.encoder is None else [v.pad, v.sentinels[0]]
    closings = [v.eos, *v.sentinels[1:]]
    ends = [alone(filler, [*source, v.eos], [*start, *choice], [closing]) for closing in closings]
    return alone(filler, [*source, v.eos], start, list(choice)) + np.logaddexp.reduce(ends)


def as_denoised(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v, noise = filler.vocabulary, filler.objective.noise
    hole = {"infilling": [v.mask], "masking": [v.mask] * len(choice), "deletion": []}[noise]
    source = [v.bos, *cloze.left, *hole, *behind(filler, cloze, None if noise == "deletion" else v.mask), v.eos]
    rest = [*choice, *cloze.right, *([] if cloze.later else [v.eos])]
    return alone(filler, source, [v.pad, v.bos, *cloze.left], rest)


def as_masked(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    goes_on = filler.objective.name == "mixed_visibility" and filler.objective.predict == "next"
    lead = ([v.bos] if cloze.begins else []) if goes_on else [v.cls]
    ends = cloze.ends or filler.objective.name in ("next_sentence", "bimodal_code")
    shift = getattr(filler.objective, "predict", "here") == "next"
    found = 0.0
    for place, token in enumerate(choice):
        hidden = [*choice[:place], *[v.mask] * (len(choice) - place)]
        row = [*lead, *cloze.left, *hidden, *behind(filler, cloze, v.mask)]
        row += [v.eos if goes_on else v.sep] if ends else []
        labels = [IGNORE] * len(row)
        labels[len(lead) + len(cloze.left) + place - shift] = token
        found += total(filler, input_ids=row, labels=labels)
    return found


def as_judged(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v = filler.vocabulary
    row = [v.cls, *cloze.left, *choice, *behind(filler, cloze, v.mask), *([v.sep] if cloze.ends else [])]
    batch = Batch(input_ids=np.array([row], np.int32))
    with torch.inference_mode():
        outputs = filler.model(prepare(batch, filler.model.config, torch.device("cpu"), torch.float32))
        logits = filler.model.heads["replaced"](outputs.hidden_BTD[0])
    start = 1 + len(cloze.left)
    return float(torch.sigmoid(-logits[start : start + len(choice)].double()).log().sum())


def as_permuted(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    """One row as the objective makes it: all tokens, and a query for each token of the answer, in their order."""
    v, n = filler.vocabulary, len(choice)
    text = [v.cls, *cloze.left, *choice, *cloze.right]
    positions = list(range(len(text)))
    for piece in cloze.later:
        start = positions[-1] + 2  # a place that nobody sees
        text, positions = [*text, *piece], [*positions, *range(start, start + len(piece))]
    if cloze.ends:
        text, positions = [*text, v.sep], [*positions, positions[-1] + 1]
    first = 1 + len(cloze.left)
    order = [0] * len(text)
    order[first : first + n] = range(1, n + 1)
    return total(
        filler,
        input_ids=[*text, *[v.mask] * n],
        labels=[IGNORE] * len(text) + list(choice),
        segment_ids=[0] * (len(text) + n),
        position_ids=[*positions, *range(first, first + n)],
        rank=[*order, *[n + 1] * n],
        reach=[*order, *range(n)],
        attention="ranked",
    )


def as_sequence(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    v, left = filler.vocabulary, list(cloze.left)
    beside = max(1, round(filler.objective.rate * (len(left) + len(cloze.right))))
    after = cloze.right[:beside]
    before = left[max(0, len(left) + len(after) - beside) :]
    stretch = [*before, *choice, *after]
    source = [*left, *choice, *behind(filler, cloze, v.mask)]
    first = len(left) - len(before)
    source[first : first + len(stretch)] = [v.mask] * len(stretch)
    return total(
        filler,
        input_ids=source,
        decoder_input_ids=[v.pad, *stretch[:-1]],
        decoder_labels=[IGNORE] * len(before) + [*choice, *after],
        decoder_position_ids=list(range(first, first + len(stretch))),
    )


WAYS = {
    "causal": as_continuation,
    "prefix": as_prefix,
    "fill_in_middle": as_middle,
    "span_corruption": as_span,
    "denoising": as_denoised,
    "masked": as_masked,
    "replaced_token": as_judged,
    "permutation": as_permuted,
    "masked_sequence": as_sequence,
}


def one_by_one(filler, cloze: Cloze, choice: tuple[int, ...]) -> float:
    """The score as the class's docstring defines it, from single forward passes."""
    return WAYS[filler.objective.way_of_filling()](filler, cloze, choice)


def test_every_way_is_among_the_kinds():
    assert {build(*kind).way_of_filling() for kind in KINDS} == set(WAYS) == set(FILLERS)


@each_kind
def test_scores_of_choices_equal_brute_force(store, objective, options):
    filler = random_filler(objective, store, **options)
    some = clozes(filler)
    choices = [[(130,), (131, 132), (133, 134, 135)], [(140, 141)], [(150,), (151,)], [(160, 161, 162)]]
    for cloze, many, found in zip(some, choices, filler.scores(some, choices), strict=True):
        assert found == pytest.approx([one_by_one(filler, cloze, choice) for choice in many], abs=3e-4)


@each_kind
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


@pytest.mark.parametrize(("objective", "options"), LOCAL, ids=ids)
def test_the_best_single_token_is_found(store, objective, options):
    filler = random_filler(objective, store, **options)
    cloze = clozes(filler)[0]
    allowed = np.flatnonzero(~filler.banned).tolist()
    scores = filler.scores([cloze], [[(token,) for token in allowed]])[0]
    best = np.argsort(-scores)[:3]
    found = filler.answers([cloze], 3, 1)[0]
    assert [a.tokens[0] for a in found] == [allowed[i] for i in best]
    assert [a.score for a in found] == pytest.approx(scores[best], abs=1e-4)


@each_kind
def test_an_answer_has_the_score_that_it_has_as_a_choice(store, objective, options):
    filler = random_filler(objective, store, **options)
    cloze = clozes(filler)[0]
    found: list[Answer] = filler.answers([cloze], 5, 2)[0]
    expected = filler.scores([cloze], [[a.tokens for a in found]])[0]
    if build(objective, options).way_of_filling() == "masked":  # the surest place first: the chain has another order
        single = [len(a.tokens) == 1 for a in found]
        found, expected = [a for a, one in zip(found, single, strict=True) if one], expected[single]
    assert [a.score for a in found] == pytest.approx(expected, abs=2e-4)


@each_kind
def test_the_order_of_choices_changes_nothing(store, objective, options):
    filler = random_filler(objective, store, **options)
    some = clozes(filler, 3)
    choices = [[(130,), (131, 132), (133, 134, 135)], [(140, 141), (142,)], [(150,), (151,)]]
    forwards = filler.scores(some, choices)
    backwards = filler.scores(some[::-1], [many[::-1] for many in choices[::-1]])
    for one, other in zip(forwards, backwards[::-1], strict=True):
        assert one == pytest.approx(other[::-1], abs=2e-4)


def test_a_generator_proposes_and_the_model_judges(store):
    filler = random_filler("replaced_token", store)
    cloze = clozes(filler)[0]
    proposed = {a.tokens for a in filler.generator.answers([cloze], 8, 2)[0]}
    found = filler.answers([cloze], 8, 2)[0]
    assert {a.tokens for a in found} == proposed
    assert [a.tokens for a in found] != [a.tokens for a in filler.generator.answers([cloze], 8, 2)[0]]


@pytest.mark.parametrize(
    ("objective", "options"), [("denoising", {"noise": "masking"}), ("denoising", {}), ("masked_sequence", {})]
)
def test_a_decoder_that_is_told_how_many_tokens_are_hidden_writes_as_many(store, objective, options):
    filler = random_filler(objective, store, **options)
    cloze = Cloze((120, 121), (122,), length=3)
    assert ({len(a.tokens) for a in filler.answers([cloze], 4, 2)[0]} == {3}) == filler.counted


def test_a_model_that_fills_no_blanks_is_refused(store):
    for objective, options in (
        ("next_sentence", {"inner": "off"}),
        ("text_to_text", {"unsupervised": 0.0}),
        ("mixed_visibility", {"masked": 0, "causal": 0, "right_to_left": 1}),
        ("denoisers", {"table": [{"mode": "[S2S]", "kind": "prefix"}]}),
    ):
        with pytest.raises(UserError, match=f"{objective} .*does not fill blanks"):
            random_filler(objective, store, **options)


def test_an_encoder_that_learnt_to_go_on_has_no_decoder_to_do_so(store):
    objective = build("mixed_visibility", {"masked": 0})
    texts = TokenTexts(store.tokenizer, store.vocabulary)
    assert not can_fill(random_model(objective, store, architecture="encoder"), objective)
    assert can_fill(random_model(objective, store), objective)
    both = build("mixed_visibility")
    way = filler(random_model(both, store, architecture="encoder"), both, texts)
    cloze = clozes(way)[0]
    assert way.scores([cloze], [[(130, 131)]])[0] == pytest.approx([as_masked(way, cloze, (130, 131))], abs=2e-4)


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


@each_kind
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
