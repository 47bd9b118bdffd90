"""What every encoder-decoder's parity test does: rows of two documents or with padding, and a cached decoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tests.parity.families import cached_logits, our_logits, round_trip, their_logits

from pretextlm.model.incremental_decoding import IncrementalDecoder

VOCABULARY, SOURCE, TARGET = 70, 13, 9
SOURCES = np.random.default_rng(0).integers(4, VOCABULARY, (3, SOURCE))
TARGETS = np.random.default_rng(1).integers(4, VOCABULARY, (3, TARGET))
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def logits(model: Any) -> torch.Tensor:
    """Of whole rows."""
    return their_logits(model, input_ids=SOURCES, decoder_input_ids=TARGETS)


class EncoderDecoderParity:
    """Tests of a fixture `both`: (theirs, ours, what the import found, its directory)."""

    def test_nothing_is_missing_and_nothing_is_left(self, both):
        assert both[2].missing == []
        assert both[2].left == []

    def test_padded_rows_have_the_same_logits(self, both):
        """Rows of either side that end in padding, whatever the other side's; ours are numbers everywhere."""
        model, ours, *_ = both
        source = (np.arange(SOURCE) < np.array([SOURCE, 5, 1])[:, None]).astype(int)
        target = (np.arange(TARGET) < np.array([4, TARGET, 1])[:, None]).astype(int)
        for seen in (source, np.ones_like(source)):
            rows = {"input_ids": SOURCES, "decoder_input_ids": TARGETS}
            expected = their_logits(model, **rows, attention_mask=seen, decoder_attention_mask=target)
            found = our_logits(ours, **rows, segment_ids=seen - 1, decoder_segment_ids=target - 1)
            torch.testing.assert_close(found[target == 1], expected[target == 1], **CLOSE)
            assert found.isfinite().all()

    def test_packed_documents_have_the_logits_they_have_apart(self, both):
        model, ours, *_ = both
        found = our_logits(
            ours,
            input_ids=SOURCES[:1],
            segment_ids=[[0] * 5 + [1] * 8],
            position_ids=[[*range(5), *range(8)]],
            decoder_input_ids=TARGETS[:1],
            decoder_segment_ids=[[0] * 6 + [1] * 3],
            decoder_position_ids=[[*range(6), *range(3)]],
        )
        for source, target in ((slice(0, 5), slice(0, 6)), (slice(5, 13), slice(6, 9))):
            apart = their_logits(model, input_ids=SOURCES[:1, source], decoder_input_ids=TARGETS[:1, target])
            torch.testing.assert_close(found[:, target], apart, **CLOSE)

    def test_a_decoder_that_reads_piece_by_piece_has_the_same_logits(self, both):
        """The decoder's row read in three pieces, and ragged rows side by side in two, one of them empty."""
        model, ours, *_ = both
        source, target = SOURCES[0].tolist(), TARGETS[0].tolist()
        torch.testing.assert_close(cached_logits(ours, target, [1, 4], source), logits(model)[0], **CLOSE)
        sources = [SOURCES[0, :4].tolist(), SOURCES[1].tolist(), SOURCES[2, :1].tolist()]
        cuts, lengths = [3, 0, 5], [TARGET, 4, 6]
        reader = IncrementalDecoder(ours, sources)
        with torch.inference_mode():
            first = ours.logits(reader.extend([row[:cut].tolist() for row, cut in zip(TARGETS, cuts, strict=True)]))
            ends = zip(TARGETS, cuts, lengths, strict=True)
            second = ours.logits(reader.extend([row[cut:length].tolist() for row, cut, length in ends]))
        for i, (cut, length) in enumerate(zip(cuts, lengths, strict=True)):
            found = torch.cat([first[i, first.size(1) - cut :], second[i, second.size(1) - (length - cut) :]])
            apart = their_logits(model, input_ids=[sources[i]], decoder_input_ids=TARGETS[i : i + 1, :length])
            torch.testing.assert_close(found, apart[0], **CLOSE)

    def test_what_is_written_back_loads_without_a_missing_or_unexpected_key(self, both):
        model, ours, _, directory = both
        torch.testing.assert_close(logits(round_trip(ours, model, directory)), logits(model))
