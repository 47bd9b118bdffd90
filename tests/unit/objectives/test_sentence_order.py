"""Sentence-order prediction: neighbouring passages of one document, one in two pairs swapped."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from tests.unit.data.small_splits import split_of
from tests.unit.objectives.hand_rows import vocabulary
from tests.unit.objectives.test_next_sentence import FIRST, rows_and_batch, split

from pretextlm.errors import UserError
from pretextlm.objectives.registry import build

V = vocabulary()


def test_both_parts_are_neighbours_in_one_document_and_the_label_says_their_order():
    _, rows, batch = rows_and_batch("sentence_order", length=200, short=0.0)
    tokens, types = rows.matrix(rows.tokens), rows.matrix(rows.token_type_ids)
    for row, kind, label in zip(tokens, types, batch.row_labels.tolist(), strict=True):
        a, b = (row[(row >= FIRST) & (kind == part)] - FIRST for part in (0, 1))
        assert a[0] // 20 == b[0] // 20
        assert (b[0] == a[-1] + 1) == (label == 0)
        assert (a[0] == b[-1] + 1) == (label == 1)
        assert sorted([*a, *b]) == sorted(a[0] // 20 * 20 + np.repeat(np.arange(7), 4))  # nothing is lost


def test_one_pair_in_two_is_swapped():
    objective = build("sentence_order")
    reader = objective.reader(split(), V, 24)
    labels = np.concatenate([reader.pairs(1, epoch).label for epoch in range(200)])
    assert stats.binomtest(int(labels.sum()), len(labels), 0.5).pvalue > 1e-4
    assert len(labels) > 4000


def test_a_single_sentence_never_gets_a_partner_from_another_document():
    odd = [[FIRST + 20 * d] * n for d, n in enumerate((9, 1, 4))]
    text = split_of(odd)  # one sentence each
    with pytest.raises(UserError, match="two sentences"):
        build("sentence_order").reader(text, V, 24)


def test_one_document_is_enough():
    reader = build("sentence_order").reader(split(documents=1), V, 200)
    assert len(reader.pairs(0, 0)) >= 1


def test_there_are_two_classes():
    objective = build("sentence_order")
    assert [(kind.relation, kind.share, kind.label) for kind in objective.kinds] == [
        ("next", 0.5, 0),
        ("previous", 0.5, 1),
    ]
