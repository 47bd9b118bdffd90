"""Layouts: the same source and target for an encoder-decoder and for a decoder with a prefix."""

from __future__ import annotations

import numpy as np
from tests.unit.objectives.hand_rows import keyed, rows_of, text, vocabulary

from pretextlm.attention_mask import may_attend
from pretextlm.batch import IGNORE
from pretextlm.objectives.registry import build
from pretextlm.objectives.shared import layout

V = vocabulary()
SOURCE = np.array([[9, 24, 26, 21]], np.int32)
TARGET = np.array([[23, 29, 21]], np.int32)
IDS = np.array([5])


def test_an_encoder_decoder_reads_the_target_after_the_pad_id():
    batch = layout.encoder_decoder(SOURCE, TARGET, V, IDS)
    assert batch.input_ids.tolist() == [[9, 24, 26, 21]]
    assert batch.decoder_input_ids.tolist() == [[V.pad, 23, 29]]
    assert batch.decoder_labels.tolist() == [[23, 29, 21]]
    assert batch.labels is None
    assert batch.targets is batch.decoder_labels


def test_a_prefix_row_predicts_the_target_from_the_last_token_of_the_source_on():
    batch = layout.prefix(SOURCE, TARGET, V, IDS)
    assert batch.input_ids.tolist() == [[9, 24, 26, 21, 23, 29]]
    assert batch.labels.tolist() == [[IGNORE, IGNORE, IGNORE, 23, 29, 21]]
    assert batch.prefix.tolist() == [[4] * 6]
    assert batch.attention == "prefix"


def test_in_a_prefix_row_the_source_sees_itself_and_no_target_is_seen_before_its_time():
    batch = layout.prefix(SOURCE, TARGET, V, IDS)
    zeros, positions = np.zeros((1, 6), int), np.arange(6)[None]
    mask = may_attend(zeros, zeros, positions, positions, batch.prefix, batch.attention)[0].astype(int)
    assert mask.tolist() == [[1, 1, 1, 1, 0, 0]] * 4 + [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    first_target = 3  # the position that predicts the first target lies in the bidirectional part
    assert mask[0].tolist() == mask[first_target].tolist()


def test_a_denoiser_hides_the_same_in_both_layouts():
    rows = rows_of(text(6, 40, V))
    pair = build("span_corruption").collate(rows, V, keyed(rows))
    single = build("span_corruption", {"layout": "prefix"}).collate(rows, V, keyed(rows))
    width = pair.input_ids.shape[1]
    assert (single.input_ids[:, :width] == pair.input_ids).all()
    assert (single.labels[:, width - 1 :] == pair.decoder_labels).all()
    assert (single.labels[:, : width - 1] == IGNORE).all()
    assert (single.input_ids[:, width:] == pair.decoder_labels[:, :-1]).all()
