"""Causal language modelling: aligned labels, every token a target once, documents apart."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.objectives.hand_rows import keyed, rows_of, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.objectives.registry import build

V = vocabulary()


def collate(rows, **options):
    return build("causal", options).collate(rows, V, keyed(rows))


def test_the_label_of_a_position_is_the_next_token():
    tokens = text(6, 33, V)
    batch = collate(rows_of(tokens))
    assert (batch.input_ids == tokens[:, :-1]).all()
    assert (batch.labels == tokens[:, 1:]).all()
    assert (batch.labels[:, :-1] == batch.input_ids[:, 1:]).all()


@pytest.mark.parametrize("length", [1, 2, 16, 512])
def test_rows_read_one_token_more_than_they_hold_and_share_it_with_the_next(length):
    (variant,) = build("causal").variants(V, length)
    assert (variant.raw, variant.length, variant.decoder_length, variant.overlap) == (length + 1, length, 0, 1)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_stream_that_fills_its_rows_exactly_has_a_target_for_every_token_but_the_first(rows):
    length = 8
    stream = text(1, rows * length + 1, V)[0]
    windows = np.stack([stream[i * length : i * length + length + 1] for i in range(rows)])
    batch = collate(rows_of(windows))
    objective = build("causal")
    assert objective.counts(batch) == {"lm": rows * length}
    assert (batch.labels.reshape(-1) == stream[1:]).all()
    assert (batch.input_ids.reshape(-1) == stream[:-1]).all()


def test_no_label_crosses_into_another_document():
    segments = np.array([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    tokens = text(1, 9, V)
    batch = collate(rows_of(tokens, segments=segments))
    t = tokens[0]
    assert batch.labels.tolist() == [[t[1], t[2], IGNORE, t[4], IGNORE, t[6], t[7], t[8]]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1, 2]]
    assert batch.segment_ids.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    mask = may_attend(
        batch.segment_ids, batch.segment_ids, batch.position_ids, batch.position_ids, None, batch.attention
    )
    assert mask[0].sum(axis=1).tolist() == [1, 2, 3, 1, 2, 1, 2, 3]


def test_without_isolation_a_row_is_one_run_of_text():
    segments = np.array([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
    tokens = text(1, 9, V)
    batch = collate(rows_of(tokens, segments=segments), isolate=False)
    assert (batch.labels == tokens[:, 1:]).all()
    assert batch.segment_ids is None
    assert batch.position_ids is None
    assert batch.attention == "causal"


@pytest.mark.parametrize("isolate", [True, False])
def test_padding_is_never_a_target_but_its_id_may_be_one(isolate):
    tokens = text(2, 7, V)
    tokens[0, 2] = V.pad  # the id alone says nothing: only the segment does
    tokens[1, 4:] = V.pad
    segments = np.zeros((2, 7), int)
    segments[1, 4:] = -1
    batch = collate(rows_of(tokens, segments=segments), isolate=isolate)
    assert batch.labels[0, 1] == V.pad
    assert (batch.labels[1] != IGNORE).tolist() == [True, True, True, False, False, False]
    assert batch.segment_ids[1].tolist() == [0, 0, 0, 0, -1, -1]


def test_documents_stand_between_begin_and_end():
    frame = build("causal").frame(V)
    assert (frame.begin, frame.end, frame.lead) == (V.bos, V.eos, None)
