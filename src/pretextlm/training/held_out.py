"""Which held-out text a model is measured on: whole documents, read as rows of its objective."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pretextlm.errors import UserError

if TYPE_CHECKING:
    from pretextlm.data.row_reader import RowReader
    from pretextlm.data.store import Split
    from pretextlm.data.vocabulary import Vocabulary
    from pretextlm.objectives.protocol import TrainingObjective

MAX_TOKENS = 32_768
"""Tokens of held-out documents that the objective's own measures are taken on, at most; one document at least."""

MOST_TOKENS = 32_768
"""Tokens read at most where the first held-out documents have no row for the objective, and all are looked at."""

UNIT_TOKENS = 256
"""Rows are measured in groups of so many tokens (one row at least), which are the units of standard errors."""


def held_out_documents(split: Split, documents: int, tokens: int) -> Split:
    """The first documents: at most so many, and of at most so many tokens together, but at least one with text.

    Raises UserError when the split holds no text.
    """
    if not split.num_tokens:
        raise UserError(
            "The store's validation split holds no text.",
            "Prepare it again from more documents or with a larger validation share.",
        )
    ends = split.documents[1:].astype(np.int64)
    fitting = int(np.searchsorted(ends, tokens, side="right"))
    first_with_text = int(np.searchsorted(ends, 0, side="right")) + 1
    return split.first_documents(max(min(documents, fitting), first_with_text))


def held_out_rows(
    objective: TrainingObjective, vocabulary: Vocabulary, split: Split, length: int, whole: Split | None = None
) -> tuple[RowReader, int]:
    """A reader of the documents of `split`, and how many of its rows are measured: all of one pass.

    Args:
        whole: the split they are of, for objectives that find no row in them: some of its rows are then measured.

    Raises UserError where no text gives a row.
    """
    try:
        reader = objective.reader(split, vocabulary, length)
    except UserError:
        if whole is None:
            raise
        reader = objective.reader(whole, vocabulary, length)
        return reader, min(reader.rows_per_pass, max(1, int(MOST_TOKENS // reader.tokens_per_row)))
    return reader, reader.rows_per_pass
