"""How a model of permutation language modelling fills a blank: each open place has a query after the text, from left to
right, which sees both sides and what has been filled.

    [CLS] The      sat on the mat . [SEP]   [MASK]      position of the query: 2
    position   0   1        3  4  5   6  7   8        2

Further blanks leave a gap in the positions, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pretextlm.batch import Batch
from pretextlm.evaluation.cloze import Cloze
from pretextlm.evaluation.in_place import I64, Asked, InPlaceFiller
from pretextlm.evaluation.scoring import by_length
from pretextlm.model.model_inputs import prepare


class PermutationFiller(InPlaceFiller):
    """Nothing stands in an open place, and in further blanks: in training, nobody sees such a token either.

    Filled places have ranks in their order, as in a row whose targets they are: the text does not see them.
    """

    in_order: ClassVar[bool] = True

    @torch.inference_mode()
    def states(self, clozes: Sequence[Cloze], rows: Sequence[Asked], row_of: I64, place_of: I64) -> Tensor:
        laid_out = [self._row(clozes[asked.blank], asked.tokens) for asked in rows]
        device = self.model.embed_tokens.weight.device
        hidden = torch.empty(len(rows), self.model.config.hidden_size, device=device)
        for part in by_length([row.shape[1] for row in laid_out]):
            width = max(laid_out[i].shape[1] for i in part)
            arrays = np.zeros((4, len(part), width), np.int32)
            segments = np.full((len(part), width), -1, np.int32)
            arrays[0] = self.vocabulary.pad
            for nth, i in enumerate(part):
                row = laid_out[i]
                arrays[:, nth, width - row.shape[1] :] = row
                segments[nth, width - row.shape[1] :] = 0
            ids, positions, rank, reach = arrays
            batch = Batch(ids, segment_ids=segments, position_ids=positions, attention="ranked", rank=rank, reach=reach)
            outputs = self.model(prepare(batch, self.model.config, device, torch.float32))
            hidden[torch.from_numpy(part).to(device)] = outputs.hidden_BTD[:, -1]
        return hidden[torch.from_numpy(row_of).to(device)]

    def _row(self, cloze: Cloze, filled: Sequence[int]) -> NDArray[np.int32]:
        """(4, T) ids, positions, ranks and reaches; the last is the query of the first open place."""
        frame = self.objective.frame(self.vocabulary)
        known = [token for token in filled if token >= 0]
        before = [*([] if frame.lead is None else [frame.lead]), *cloze.left]
        end = [] if frame.end is None or not cloze.ends else [frame.end]
        columns = [(token, position, 0, 0) for position, token in enumerate(before)]
        columns += [(token, len(before) + nth, nth + 1, nth + 1) for nth, token in enumerate(known)]
        position = len(before) + len(filled)
        for nth, piece in enumerate([cloze.right, *cloze.later]):
            position += nth > 0
            columns += [(token, position + place, 0, 0) for place, token in enumerate(piece)]
            position += len(piece)
        columns += [(token, position, 0, 0) for token in end]
        columns.append((self.vocabulary.mask, len(before) + len(known), len(filled) + 1, len(known)))
        return np.array(columns, np.int32).T
