"""How likely a model finds a continuation of a text, in the way its kind can tell.

continuation   a decoder's Σ log p(token | everything before it); the continuations of one text share what was read.
               An encoder-decoder reads the text, with a sentinel at its end where it learnt spans.
pseudo         a masked model's Σ log p(token | both sides), each token of the continuation hidden by itself
               (pseudo-log-likelihood, Salazar et al. 2020, https://arxiv.org/abs/1910.14659)
pseudo_word    the same, with what follows in the same word hidden too: long words are no longer guessed from their own
               pieces (Kauf & Ivanova 2023, https://arxiv.org/abs/2305.10588)
cloze          any model that fills blanks: the continuation as what fills a blank at the text's end
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pretextlm.errors import UserError
from pretextlm.evaluation.benchmarks.cloze_weigher import ClozeWeigher
from pretextlm.evaluation.benchmarks.continuation_weigher import ContinuationWeigher
from pretextlm.evaluation.benchmarks.pseudo_weigher import PseudoWeigher, WordPseudoWeigher
from pretextlm.evaluation.benchmarks.weigh import Weigher
from pretextlm.evaluation.cloze import TokenTexts

if TYPE_CHECKING:
    from pretextlm.model.transformer import Transformer
    from pretextlm.objectives.base import Objective

METHODS = ("auto", "continuation", "pseudo", "pseudo_word", "cloze")
WEIGHERS: dict[str, type[Weigher]] = {
    one.method: one for one in (ContinuationWeigher, PseudoWeigher, WordPseudoWeigher, ClozeWeigher)
}


def weigher(
    model: Transformer,
    objective: Objective,
    texts: TokenTexts,
    method: str = "auto",
    *,
    rows: int | None = None,
    batch_size: int = 32,
    framed: bool = True,
    exact: bool = False,
) -> Weigher:
    """The way that suits the model, or the one that is asked for.

    A decoder that goes on from a text does so; a masked model has pseudo-log-likelihoods; all others fill blanks.

    Args:
        framed: a decoder's texts begin as its documents did in training.
        exact: what the model itself would write is compared; a masked model then fills a blank of known length.

    Raises:
        UserError: there is no such way, or the model does not know it.
    """
    if method not in METHODS:
        raise UserError(f"There is no scoring {method!r}.", f"Known: {', '.join(METHODS)}.")
    decoder = ContinuationWeigher(model, objective, texts, rows, batch_size, framed)
    goes_on = decoder.opening((0,)) is not None
    if method == "continuation" and not goes_on:
        raise UserError(
            f"A model trained by {objective.name} with these options does not go on from a text.",
            "Score it otherwise: --scoring auto.",
        )
    if method == "continuation" or (method == "auto" and goes_on):
        return decoder
    if method == "auto":
        method = "pseudo" if objective.way_of_filling() == "masked" and not exact else "cloze"
    found = WEIGHERS[method](model, objective, texts, rows, batch_size)
    if isinstance(found, ClozeWeigher):
        found.exact = exact
    return found
