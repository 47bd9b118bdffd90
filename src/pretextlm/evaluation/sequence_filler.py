"""How a model of masked sequence to sequence fills a blank: the encoder reads [MASK]s there, the decoder writes it.

    encoder    The [MASK] [MASK] sat on the mat .
    decoder    [PAD] black …                          positions 1 2: those of the blank

So the model is told how many tokens are missing, as in training, and every number is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.evaluation.cloze import Cloze
from pretextlm.evaluation.in_place import I64, Asked, InPlaceFiller
from pretextlm.evaluation.scoring import by_length
from pretextlm.model.incremental import pad_left
from pretextlm.model.inputs import prepare


class MaskedSequenceFiller(InPlaceFiller):
    """The blank is the hidden stretch, shorter than in training; the decoder fills it from left to right."""

    in_order: ClassVar[bool] = True

    @torch.inference_mode()
    def states(self, clozes: Sequence[Cloze], rows: Sequence[Asked], row_of: I64, place_of: I64) -> Tensor:
        v = self.vocabulary
        device = self.model.embed_tokens.weight.device
        sources = [self._source(clozes[asked.blank], len(asked.tokens)) for asked in rows]
        written = [[v.pad, *(token for token in asked.tokens if token >= 0)] for asked in rows]
        hidden = torch.empty(len(rows), self.model.config.hidden_size, device=device)
        for part in by_length([len(source) for source in sources]):
            ids, segments, positions = pad_left([sources[i] for i in part], v.pad)
            last = np.array([len(written[i]) - 1 for i in part])
            decoder_ids = np.full((len(part), int(last.max()) + 1), v.pad, np.int32)
            for nth, i in enumerate(part):  # what is filled up stands behind, where no token before it looks
                decoder_ids[nth, : len(written[i])] = written[i]
            starts = np.array([len(clozes[rows[i].blank].left) for i in part])
            batch = Batch(
                ids,
                segment_ids=segments,
                position_ids=positions,
                decoder_input_ids=decoder_ids,
                decoder_segment_ids=np.zeros_like(decoder_ids),
                decoder_position_ids=starts[:, None] + np.arange(decoder_ids.shape[1]),
            )
            outputs = self.model(prepare(batch, self.model.config, device, torch.float32))
            found = outputs.hidden_BTD[torch.arange(len(part)), torch.from_numpy(last)]
            hidden[torch.from_numpy(part).to(device)] = found
        return hidden[torch.from_numpy(row_of).to(device)]

    def _source(self, cloze: Cloze, length: int) -> list[int]:
        mask = self.vocabulary.mask
        row = [*cloze.left, *[mask] * length, *cloze.right]
        for piece in cloze.later:
            row += [mask, *piece]
        return row
