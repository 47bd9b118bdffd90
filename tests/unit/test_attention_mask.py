"""The one visibility rule against the same rule written as loops, and for torch as for numpy."""

from __future__ import annotations

import numpy as np
import pytest

from pretextlm.attention_mask import may_attend


def by_loops(query_segments, key_segments, query_positions, key_positions, prefix):
    out = np.zeros((len(query_segments), query_segments.shape[1], key_segments.shape[1]), bool)
    for b, i, j in np.ndindex(*out.shape):
        same = query_segments[b, i] == key_segments[b, j]
        out[b, i, j] = same and (key_positions[b, j] <= query_positions[b, i] or key_positions[b, j] < prefix[b, j])
    return out


@pytest.fixture
def packed():
    """Two rows of packed documents; the second ends in padding."""
    segments = np.array([[0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 1, 1, 1, 1, -1, -1]])
    positions = np.array([[0, 1, 2, 0, 1, 2, 3, 0], [0, 1, 0, 1, 2, 3, 0, 0]])
    prefix = np.array([[2, 2, 2, 3, 3, 3, 3, 0], [1, 1, 0, 0, 0, 0, 0, 0]])
    return segments, positions, prefix


def test_prefix_rows_follow_the_rule(packed):
    segments, positions, prefix = packed
    got = may_attend(segments, segments, positions, positions, prefix, "prefix")
    assert (got == by_loops(segments, segments, positions, positions, prefix)).all()


def test_causal_is_the_rule_with_no_prefix(packed):
    segments, positions, prefix = packed
    got = may_attend(segments, segments, positions, positions, attention="causal")
    assert (got == by_loops(segments, segments, positions, positions, prefix * 0)).all()


def test_bidirectional_is_the_rule_with_an_endless_prefix(packed):
    segments, positions, prefix = packed
    got = may_attend(segments, segments)
    assert (got == by_loops(segments, segments, positions, positions, prefix * 0 + 99)).all()


def test_text_never_sees_padding_nor_another_document(packed):
    segments, positions, prefix = packed
    for attention in ("causal", "bidirectional", "prefix"):
        mask = may_attend(segments, segments, positions, positions, prefix, attention)
        assert not mask[segments[:, :, None] != segments[:, None, :]].any()


def test_every_position_sees_itself(packed):
    segments, positions, prefix = packed
    for attention in ("causal", "bidirectional", "prefix"):
        mask = may_attend(segments, segments, positions, positions, prefix, attention)
        assert np.diagonal(mask, axis1=1, axis2=2).all()


def test_cross_attention_stays_within_the_segment():
    decoder, encoder = np.array([[0, 0, 1, -1]]), np.array([[0, 1, 1, 1, -1]])
    assert may_attend(decoder, encoder)[0, :3].astype(int).tolist() == [[1, 0, 0, 0, 0]] * 2 + [[0, 1, 1, 1, 0]]


@pytest.mark.parametrize("attention", ["causal", "bidirectional", "prefix"])
def test_torch_and_numpy_agree(packed, attention):
    import torch

    segments, positions, prefix = packed
    as_numpy = may_attend(segments, segments, positions, positions, prefix, attention)
    s, p, f = (torch.from_numpy(a) for a in packed)
    assert (may_attend(s, s, p, p, f, attention).numpy() == as_numpy).all()
