"""The held-out documents on which models are evaluated, read as rows of an objective."""

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
"""Largest number of tokens of held-out documents for the objective's own metrics; at least one document is used."""

MOST_TOKENS = 32_768
"""Largest number of tokens if the first held-out documents have no row for the objective and all are used."""

UNIT_TOKENS = 256
"""Tokens of a group of rows (at least one row); groups are the units of standard errors."""


def held_out_documents(split: Split, documents: int, tokens: int) -> Split:
    """Selects the first documents of a split.

    Args:
        split: of a store.
        documents: largest number of documents.
        tokens: largest number of tokens of all of them together; one document with text is selected in any case.

    Returns:
        A split of these documents.

    Raises:
        UserError: the split holds no text.
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
    """Returns a reader of held-out documents as rows of an objective, and the number of rows to evaluate.

    Args:
        objective: whose rows they are.
        vocabulary: special ids in the roles that the model gives them.
        split: the selected documents.
        length: tokens of a row.
        whole: the split they were selected from, for objectives that find no row in so few documents (such as pairs of
            sentences); some of its rows are then evaluated.

    Returns:
        (reader, number of rows): one pass over `split`, or rows of at most `MOST_TOKENS` tokens of `whole`.

    Raises:
        UserError: the text contains no row for the objective.
    """
    try:
        reader = objective.reader(split, vocabulary, length)
    except UserError:
        if whole is None:
            raise
        reader = objective.reader(whole, vocabulary, length)
        return reader, min(reader.rows_per_pass, max(1, int(MOST_TOKENS // reader.tokens_per_row)))
    return reader, reader.rows_per_pass
