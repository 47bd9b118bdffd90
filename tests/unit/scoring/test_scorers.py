"""Each kind of model fills blanks in its own way; every score equals one worked out by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_corpus import WORDS, bigram_scorer, log_likelihood_alone, random_model, random_scorer

from pretextlm.batch import IGNORE, Batch
from pretextlm.errors import UserError
from pretextlm.evaluation.fill import fill_blanks
from pretextlm.evaluation.trained_model import blank_scorer
from pretextlm.model.model_inputs import prepare
from pretextlm.objectives.causal import CausalLayout
from pretextlm.objectives.denoising import DenoisingLayout
from pretextlm.objectives.fill_in_middle import MiddleLayout
from pretextlm.objectives.masked import MaskedLayout
from pretextlm.objectives.masked_sequence import StretchLayout
from pretextlm.objectives.permutation import PermutationLayout
from pretextlm.objectives.prefix import PrefixLayout
from pretextlm.objectives.registry import build
from pretextlm.objectives.replaced_token import DiscriminatorScorer
from pretextlm.objectives.shared.sentinel_layout import SentinelLayout
from pretextlm.scoring.bidirectional import BidirectionalScorer
from pretextlm.scoring.blank import Blank, Candidate
from pretextlm.scoring.log_probabilities import score_batch
from pretextlm.scoring.token_texts import TokenTexts

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
BIDIRECTIONAL = [
    kind
    for kind in KINDS
    if kind[0] in ("masked", "permutation", "bimodal_code", "next_sentence", "word_structure", "span_boundary")
    or (kind[0] == "mixed_visibility" and kind[1] != {"masked": 0})
]
"""Kinds whose answers are scored by the chain rule, place by place."""


def blanks(scorer, count: int = 4) -> list[Blank]:
    rng = np.random.default_rng(3)
    text = lambda low, high: tuple(rng.choice(scorer.vocabulary.ordinary, rng.integers(low, high)).tolist())  # noqa: E731
    return [
        Blank(
            text(1, 6),
            text(0, 6),
            (text(1, 3),) * (i % 2),
            starts_document=i != 1,
            ends_document=i != 2,
            starts_word=i == 3,
        )
        for i in range(count)
    ]


def total(scorer, **arrays) -> float:
    """log p of a row's labels."""
    attention = arrays.pop("attention", "bidirectional")
    batch = Batch(attention=attention, **{k: np.array([v], np.int32) for k, v in arrays.items()})
    return float(score_batch(scorer.model, batch).log_probabilities.sum())


def behind(scorer, blank: Blank, mask: int | None = None) -> list[int]:
    """The text after the blank with something for further blanks."""
    row = [*blank.right]
    for piece in blank.later:
        row += [*([] if mask is None else [mask]), *piece]
    return row


def as_continuation(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    end = [v.eos] if blank.ends_document and not blank.later else []
    begin = [v.bos] if blank.starts_document else []
    return log_likelihood_alone(scorer, None, [*begin, *blank.left], [*choice, *blank.right, *end])


def as_prefix(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    if scorer.model.encoder is not None:
        return log_likelihood_alone(scorer, [*blank.left, v.eos], [v.pad], [*choice, *(blank.right or [v.eos])])
    shown = [*([v.bos] if blank.starts_document else []), *blank.left]
    rest = [*choice, *blank.right, *([v.eos] if blank.ends_document and not blank.later else [])]
    labels = [IGNORE] * (len(shown) - 1) + rest
    prefix = [len(shown)] * len(labels)
    return total(scorer, input_ids=[*shown, *rest][:-1], labels=labels, prefix=prefix, attention="prefix")


def as_middle(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    prefix, suffix, middle = (v.id_of(f"<fim_{part}>") for part in ("prefix", "suffix", "middle"))
    head = [v.bos] if blank.starts_document else []
    row = [*head, prefix, *blank.left, suffix, *blank.right, middle]
    if objective.suffix_first:
        row = [*head, prefix, suffix, *blank.right, middle, *blank.left]
    return log_likelihood_alone(scorer, None, row, [*choice, v.eos])


def as_span(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    mode = []
    if objective.name == "denoisers" and objective.modes:
        mode = [v.id_of("[NLU]" if len(objective.table) == 7 else "[R]")]
    source = [*mode, *blank.left]
    for sentinel, piece in zip(v.sentinels, [blank.right, *blank.later], strict=False):
        source += [sentinel, *piece]
    start = [v.sentinels[0]] if scorer.model.encoder is None else [v.pad, v.sentinels[0]]
    closings = [v.eos, *v.sentinels[1:]]
    ends = [log_likelihood_alone(scorer, [*source, v.eos], [*start, *choice], [closing]) for closing in closings]
    return log_likelihood_alone(scorer, [*source, v.eos], start, list(choice)) + np.logaddexp.reduce(ends)


def as_denoised(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v, noise = scorer.vocabulary, objective.noise
    hole = {"infilling": [v.mask], "masking": [v.mask] * len(choice), "deletion": []}[noise]
    source = [v.bos, *blank.left, *hole, *behind(scorer, blank, None if noise == "deletion" else v.mask), v.eos]
    rest = [*choice, *blank.right, *([] if blank.later else [v.eos])]
    return log_likelihood_alone(scorer, source, [v.pad, v.bos, *blank.left], rest)


def as_masked(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    goes_on = objective.name == "mixed_visibility" and objective.predict == "next"
    lead = ([v.bos] if blank.starts_document else []) if goes_on else [v.cls]
    ends = blank.ends_document or objective.name in ("next_sentence", "bimodal_code")
    shift = getattr(objective, "predict", "here") == "next"
    found = 0.0
    for place, token in enumerate(choice):
        hidden = [*choice[:place], *[v.mask] * (len(choice) - place)]
        row = [*lead, *blank.left, *hidden, *behind(scorer, blank, v.mask)]
        row += [v.eos if goes_on else v.sep] if ends else []
        labels = [IGNORE] * len(row)
        labels[len(lead) + len(blank.left) + place - shift] = token
        found += total(scorer, input_ids=row, labels=labels)
    return found


def as_judged(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v = scorer.vocabulary
    row = [v.cls, *blank.left, *choice, *behind(scorer, blank, v.mask), *([v.sep] if blank.ends_document else [])]
    batch = Batch(input_ids=np.array([row], np.int32))
    with torch.inference_mode():
        outputs = scorer.model(prepare(batch, scorer.model.config, torch.device("cpu"), torch.float32))
        logits = scorer.model.heads["replaced"](outputs.hidden_BTD[0])
    start = 1 + len(blank.left)
    return float(torch.sigmoid(-logits[start : start + len(choice)].double()).log().sum())


def as_permuted(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    """One row as the objective makes it: all tokens, and a query for each token of the answer, in their order."""
    v, n = scorer.vocabulary, len(choice)
    text = [v.cls, *blank.left, *choice, *blank.right]
    positions = list(range(len(text)))
    for piece in blank.later:
        start = positions[-1] + 2  # a place that nobody sees
        text, positions = [*text, *piece], [*positions, *range(start, start + len(piece))]
    if blank.ends_document:
        text, positions = [*text, v.sep], [*positions, positions[-1] + 1]
    first = 1 + len(blank.left)
    order = [0] * len(text)
    order[first : first + n] = range(1, n + 1)
    return total(
        scorer,
        input_ids=[*text, *[v.mask] * n],
        labels=[IGNORE] * len(text) + list(choice),
        segment_ids=[0] * (len(text) + n),
        position_ids=[*positions, *range(first, first + n)],
        rank=[*order, *[n + 1] * n],
        reach=[*order, *range(n)],
        attention="ranked",
    )


def as_sequence(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    v, left = scorer.vocabulary, list(blank.left)
    beside = max(1, round(objective.rate * (len(left) + len(blank.right))))
    after = blank.right[:beside]
    before = left[max(0, len(left) + len(after) - beside) :]
    stretch = [*before, *choice, *after]
    source = [*left, *choice, *behind(scorer, blank, v.mask)]
    first = len(left) - len(before)
    source[first : first + len(stretch)] = [v.mask] * len(stretch)
    return total(
        scorer,
        input_ids=source,
        decoder_input_ids=[v.pad, *stretch[:-1]],
        decoder_labels=[IGNORE] * len(before) + [*choice, *after],
        decoder_position_ids=list(range(first, first + len(stretch))),
    )


WAYS = {
    CausalLayout: as_continuation,
    PrefixLayout: as_prefix,
    MiddleLayout: as_middle,
    SentinelLayout: as_span,
    DenoisingLayout: as_denoised,
    MaskedLayout: as_masked,
    DiscriminatorScorer: as_judged,
    PermutationLayout: as_permuted,
    StretchLayout: as_sequence,
}


def kind_of(scorer) -> type:
    return DiscriminatorScorer if isinstance(scorer, DiscriminatorScorer) else type(scorer.layout)


def one_by_one(scorer, objective, blank: Blank, choice: tuple[int, ...]) -> float:
    """The score as the class's docstring defines it, from single forward passes."""
    objective = getattr(objective, "denoiser", objective)
    return WAYS[kind_of(scorer)](scorer, objective, blank, choice)


def test_every_way_is_among_the_kinds(store):
    assert {kind_of(random_scorer(kind, store, **options)) for kind, options in KINDS} == set(WAYS)


def test_the_kinds_that_predict_in_place_are_those_scored_by_the_chain_rule(store):
    found = [kind for kind in KINDS if isinstance(random_scorer(kind[0], store, **kind[1]), BidirectionalScorer)]
    assert found == BIDIRECTIONAL


@each_kind
def test_scores_of_choices_equal_brute_force(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    some = blanks(scorer)
    choices = [[(130,), (131, 132), (133, 134, 135)], [(140, 141)], [(150,), (151,)], [(160, 161, 162)]]
    for blank, many, found in zip(some, choices, scorer.log_likelihoods(some, choices), strict=True):
        assert found == pytest.approx(
            [one_by_one(scorer, build(objective, options), blank, choice) for choice in many], abs=3e-4
        )


@each_kind
def test_answers_are_the_same_alone_and_among_others(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    some = blanks(scorer, 6)
    together = scorer.best_candidates(some, 3, 3)
    for blank, found in zip(some, together, strict=True):
        alone_found = scorer.best_candidates([blank], 3, 3)[0]
        assert [a.tokens for a in alone_found] == [a.tokens for a in found]
        assert [a.score for a in alone_found] == pytest.approx([a.score for a in found], abs=3e-4)
        assert [a.score for a in found] == sorted((a.score for a in found), reverse=True)
        assert len({a.tokens for a in found}) == 3
        assert not any(scorer.excluded[list(a.tokens)].any() for a in found)
    assert all(scorer.texts.begins_word[a.tokens[0]] for a in together[3])


@pytest.mark.parametrize(("objective", "options"), BIDIRECTIONAL, ids=ids)
def test_the_best_single_token_is_found(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    blank = blanks(scorer)[0]
    allowed = np.flatnonzero(~scorer.excluded).tolist()
    scores = scorer.log_likelihoods([blank], [[(token,) for token in allowed]])[0]
    best = np.argsort(-scores)[:3]
    found = scorer.best_candidates([blank], 3, 1)[0]
    assert [a.tokens[0] for a in found] == [allowed[i] for i in best]
    assert [a.score for a in found] == pytest.approx(scores[best], abs=1e-4)


@each_kind
def test_an_answer_has_the_score_that_it_has_as_a_choice(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    blank = blanks(scorer)[0]
    found: list[Candidate] = scorer.best_candidates([blank], 5, 2)[0]
    expected = scorer.log_likelihoods([blank], [[a.tokens for a in found]])[0]
    if kind_of(scorer) is MaskedLayout:  # the surest place first: the chain has another order
        single = [len(a.tokens) == 1 for a in found]
        found, expected = [a for a, one in zip(found, single, strict=True) if one], expected[single]
    assert [a.score for a in found] == pytest.approx(expected, abs=2e-4)


@each_kind
def test_the_order_of_choices_changes_nothing(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    some = blanks(scorer, 3)
    choices = [[(130,), (131, 132), (133, 134, 135)], [(140, 141), (142,)], [(150,), (151,)]]
    forwards = scorer.log_likelihoods(some, choices)
    backwards = scorer.log_likelihoods(some[::-1], [many[::-1] for many in choices[::-1]])
    for one, other in zip(forwards, backwards[::-1], strict=True):
        assert one == pytest.approx(other[::-1], abs=2e-4)


def test_a_generator_proposes_and_the_model_judges(store):
    scorer = random_scorer("replaced_token", store)
    blank = blanks(scorer)[0]
    proposed = {a.tokens for a in scorer.generator.best_candidates([blank], 8, 2)[0]}
    found = scorer.best_candidates([blank], 8, 2)[0]
    assert {a.tokens for a in found} == proposed
    assert [a.tokens for a in found] != [a.tokens for a in scorer.generator.best_candidates([blank], 8, 2)[0]]


@pytest.mark.parametrize(
    ("objective", "options"), [("denoising", {"noise": "masking"}), ("denoising", {}), ("masked_sequence", {})]
)
def test_a_decoder_that_is_told_how_many_tokens_are_hidden_writes_as_many(store, objective, options):
    scorer = random_scorer(objective, store, **options)
    blank = Blank((120, 121), (122,), num_tokens=3)
    assert (
        {len(a.tokens) for a in scorer.best_candidates([blank], 4, 2)[0]} == {3}
    ) == scorer.layout.source_shows_length


def test_a_model_that_fills_no_blanks_is_refused(store):
    for objective, options in (
        ("next_sentence", {"inner": "off"}),
        ("text_to_text", {"unsupervised": 0.0}),
        ("mixed_visibility", {"masked": 0, "causal": 0, "right_to_left": 1}),
        ("denoisers", {"table": [{"mode": "[S2S]", "kind": "prefix"}]}),
    ):
        with pytest.raises(UserError, match=f"{objective} .*does not fill blanks"):
            random_scorer(objective, store, **options)


def test_an_encoder_that_learnt_to_go_on_has_no_decoder_to_do_so(store):
    objective = build("mixed_visibility", {"masked": 0})
    texts = TokenTexts(store.tokenizer, store.vocabulary)
    assert objective.scorer(random_model(objective, store, architecture="encoder"), texts) is None
    assert objective.scorer(random_model(objective, store), texts) is not None
    both = build("mixed_visibility")
    scorer = blank_scorer(random_model(both, store, architecture="encoder"), both, texts)
    blank = blanks(scorer)[0]
    assert scorer.log_likelihoods([blank], [[(130, 131)]])[0] == pytest.approx(
        [as_masked(scorer, both, blank, (130, 131))], abs=2e-4
    )


def test_a_masked_model_takes_as_many_tokens_as_there_are_masks(store):
    scorer = random_scorer("masked", store)
    blank = Blank((120, 121), (122,), num_tokens=3)
    assert {len(a.tokens) for a in scorer.best_candidates([blank], 4, 1)[0]} == {3}
    free = Blank((120, 121), (122,))
    assert {len(a.tokens) for a in scorer.best_candidates([free], 400, 2)[0]} == {1, 2}


def test_a_masked_model_fills_the_surest_place_first(store):
    scorer = random_scorer("masked", store)
    blank = Blank((120, 121), (122,), num_tokens=2)
    (answer,) = scorer.best_candidates([blank], 1, 1)[0]
    logs = np.stack([_distribution(scorer, blank, (-1, -1), place) for place in (0, 1)])
    first = int(logs.max(axis=1).argmax())
    filled = [-1, -1]
    filled[first] = int(logs[first].argmax())
    assert answer.tokens[first] == filled[first]
    second = _distribution(scorer, blank, tuple(filled), 1 - first)
    assert answer.tokens[1 - first] == int(second.argmax())
    assert answer.score == pytest.approx(logs[first].max() + second.max(), abs=1e-4)


def _distribution(scorer, blank, filled, place) -> np.ndarray:
    row = np.array([scorer.layout.row(blank, filled).tokens], np.int32)
    labels = np.full_like(row, IGNORE)
    labels[0, 1 + len(blank.left) + place] = 0
    with torch.inference_mode():
        batch = Batch(input_ids=row, labels=labels)
        outputs = scorer.model(prepare(batch, scorer.model.config, torch.device("cpu"), torch.float32))
        logs = outputs.logits_NV.log_softmax(dim=1)[0].numpy().copy()
    logs[scorer.excluded] = -np.inf
    return logs


def test_fill_puts_the_best_answers_into_the_text(store):
    scorer = bigram_scorer(store)
    text = f"{WORDS[3]} {WORDS[4]} ____ {WORDS[6]} {WORDS[7]} [MASK] [MASK] {WORDS[10]} {WORDS[11]}."
    filled = fill_blanks(scorer, text, top=3)
    assert filled.text == " ".join(WORDS[3:12]) + "."
    assert [blank.answers[0][0] for blank in filled.blanks] == [WORDS[5], f"{WORDS[8]} {WORDS[9]}"]
    assert all(len(blank.answers) == 3 for blank in filled.blanks)


@each_kind
@pytest.mark.parametrize(
    "text", ["____", "____ a", "a ____", "[MASK]", "____ ____", "a[MASK]b [MASK][MASK]c ____.", "라면 ____ 먹"]
)
def test_blanks_may_stand_anywhere(store, objective, options, text):
    filled = fill_blanks(random_scorer(objective, store, **options), text, top=2, max_new_tokens=2)
    assert "____" not in filled.text
    assert "[MASK]" not in filled.text
    assert all(blank.answers for blank in filled.blanks)


def test_a_text_without_blanks_or_with_too_many_is_refused(store):
    scorer = random_scorer("span_corruption", store)
    with pytest.raises(UserError, match="no blank"):
        fill_blanks(scorer, "Nothing is missing ___ here.")
    with pytest.raises(UserError, match="sentinels"):
        fill_blanks(scorer, "____ a " * 21)
    with pytest.raises(UserError, match="the most is"):
        fill_blanks(scorer, "____ a " * 65)
