"""Masked language modelling by tokens: which, how many, and what stands there instead."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tests.unit.objectives.hand_rows import ODD_SPECIAL, framed, keyed, rows_of, selected, text, vocabulary

from pretextlm.batch import IGNORE
from pretextlm.objectives.registry import build

V = vocabulary()
POSSIBLE = 1e-4


def collate(rows, vocab=V, **options):
    return build("masked", options).collate(rows, vocab, keyed(rows))


@pytest.mark.parametrize("count", ["exact", "bernoulli"])
@pytest.mark.parametrize("rate", [0.15, 0.5, 1.0])
def test_labels_are_the_originals_and_inputs_change_only_there(count, rate):
    rows = framed(50, 60, V)
    batch = collate(rows, count=count, rate=rate)
    tokens, chosen = rows.matrix(rows.tokens), selected(batch)
    assert (batch.labels[chosen] == tokens[chosen]).all()
    assert (batch.input_ids[~chosen] == tokens[~chosen]).all()
    assert not V.is_special[tokens[chosen]].any()


def test_no_special_token_is_selected_even_at_rate_one_and_unknown_tokens_are():
    tokens = text(4, 30, V)
    specials = [V.cls, V.sep, V.mask, V.pad, V.bos, V.eos, ODD_SPECIAL, *V.sentinels]
    tokens[:, 5 : 5 + len(specials)] = specials
    tokens[:, 0] = V.unk
    batch = collate(rows_of(tokens), rate=1.0)
    expected = np.ones(30, bool)
    expected[5 : 5 + len(specials)] = False
    assert (selected(batch) == expected).all()


@pytest.mark.parametrize("rate", [0.001, 0.15, 0.4, 1.0])
def test_exact_counts_are_the_product_rounded_down_or_up_and_at_least_one(rate):
    rows = framed(400, 70, V)
    ordinary = (~V.is_special[rows.matrix(rows.tokens)]).sum(axis=1)
    counts = selected(collate(rows, rate=rate)).sum(axis=1)
    low = np.floor(rate * ordinary + 1e-12)
    assert (counts >= np.maximum(low, 1)).all()
    assert (counts <= np.maximum(low + 1, 1)).all()
    assert (counts <= ordinary).all()


def test_the_mean_of_exact_counts_is_the_rate():
    rows = rows_of(text(20_000, 50, V))  # 7.5 expected of each row: 7 or 8, evenly
    counts = selected(collate(rows)).sum(axis=1)
    assert set(counts.tolist()) == {7, 8}
    assert stats.binomtest(int((counts == 8).sum()), 20_000, 0.5).pvalue > POSSIBLE


def test_bernoulli_counts_are_binomial():
    rows = rows_of(text(5000, 20, V))
    batch = collate(rows, count="bernoulli")
    counts = np.bincount(selected(batch).sum(axis=1), minlength=21)
    expected = stats.binom.pmf(np.arange(21), 20, 0.15) * 5000
    tail = 8
    observed = np.append(counts[:tail], counts[tail:].sum())
    expected = np.append(expected[:tail], expected[tail:].sum())
    assert stats.chisquare(observed, expected).pvalue > POSSIBLE
    assert counts[0] > 0  # rows without a target exist and are rows like any other
    assert (batch.labels[selected(batch).sum(axis=1) == 0] == IGNORE).all()


def test_rows_without_an_ordinary_token_have_no_target():
    for count in ("exact", "bernoulli"):
        for unit in ("token", "word"):
            rows = rows_of(np.array([[V.cls, V.sep, V.sep], [V.cls, 30, V.sep]]))
            batch = collate(rows, count=count, unit=unit, rate=1.0)
            assert selected(batch).tolist() == [[False] * 3, [False, True, False]]


def test_every_position_is_selected_equally_often():
    tokens = text(40_000, 24, V)
    tokens[:, 0], tokens[:, 23], tokens[:, 11] = V.cls, V.sep, V.sep
    rate = 3 / 21
    counts = selected(collate(rows_of(tokens), rate=rate)).sum(axis=0)
    inside = np.delete(counts, [0, 11, 23])
    assert counts[[0, 11, 23]].tolist() == [0, 0, 0]
    # k of n without replacement: the counts' covariance makes this, not the plain sum, chi-square with n - 1 degrees
    n, k = 21, inside.sum() / 40_000
    variance = 40_000 * (k / n) * (1 - k / n) * n / (n - 1)
    assert stats.chi2.sf((((inside - inside.mean()) ** 2) / variance).sum(), n - 1) > POSSIBLE


def test_every_pair_of_positions_is_selected_equally_often():
    batch = collate(rows_of(text(30_000, 8, V)), rate=0.25)
    chosen = selected(batch)
    assert (chosen.sum(axis=1) == 2).all()
    codes = chosen @ (1 << np.arange(8))
    _, counts = np.unique(codes, return_counts=True)
    assert len(counts) == 28
    assert stats.chisquare(counts).pvalue > POSSIBLE


@pytest.mark.parametrize("unit", ["token", "word"])
@pytest.mark.parametrize(("mask", "random"), [(0.8, 0.1), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (0.2, 0.3)])
def test_selected_tokens_are_masked_replaced_or_kept_in_the_shares_asked_for(unit, mask, random):
    vocab = vocabulary(size=40_000)
    rows = framed(400, 128, vocab)
    batch = collate(rows, vocab, mask_share=mask, random_share=random, rate=0.3, unit=unit)
    chosen = selected(batch)
    before, after = rows.matrix(rows.tokens)[chosen], batch.input_ids[chosen]
    kept = 1 - mask - random + random / len(vocab.ordinary)
    observed = [(after == vocab.mask).sum(), ((after != before) & (after != vocab.mask)).sum(), (after == before).sum()]
    expected = np.array([mask, 1 - mask - kept, kept]) * chosen.sum()
    for got, want in zip(observed, expected, strict=True):
        assert (got == 0) == (want < 1e-6) or want < 5
    positive = expected > 5
    if positive.sum() > 1:
        want = expected[positive] * (np.array(observed)[positive].sum() / expected[positive].sum())
        assert stats.chisquare(np.array(observed)[positive], want).pvalue > POSSIBLE


def test_random_replacements_are_uniform_over_ordinary_tokens_and_no_other():
    vocab = vocabulary(size=60)
    rows = rows_of(text(3000, 50, vocab))
    batch = collate(rows, vocab, rate=1.0, mask_share=0.0, random_share=1.0)
    counts = np.bincount(batch.input_ids.reshape(-1), minlength=60)
    assert set(np.flatnonzero(counts)) == set(vocab.ordinary.tolist())
    assert stats.chisquare(counts[vocab.ordinary]).pvalue > POSSIBLE


def test_the_replacement_is_independent_of_the_position():
    batch = collate(rows_of(text(20_000, 20, V)), rate=0.5)
    masked = ((batch.input_ids == V.mask) & selected(batch)).sum(axis=0)
    other = selected(batch).sum(axis=0) - masked
    assert stats.chi2_contingency([masked, other]).pvalue > POSSIBLE


def test_documents_do_not_see_each_other():
    rows = framed(5, 30, V)
    batch = collate(rows)
    assert batch.attention == "bidirectional"
    assert (batch.segment_ids == rows.matrix(rows.segment_ids)).all()
    assert (batch.position_ids == rows.matrix(rows.position_ids)).all()


def test_rows_have_a_lead_token_and_documents_an_end():
    objective = build("masked")
    frame = objective.frame(V)
    assert (frame.begin, frame.end, frame.lead) == (None, V.sep, V.cls)
    (variant,) = objective.variants(V, 128)
    assert (variant.raw, variant.length, variant.overlap) == (127, 128, 0)
