"""The scorer that a layout calls for."""

from __future__ import annotations

from pretextlm.model.transformer import Transformer
from pretextlm.scoring.autoregressive import AutoregressiveScorer
from pretextlm.scoring.bidirectional import BidirectionalScorer
from pretextlm.scoring.blank_layout import BlankLayout, ContinuationLayout, InPlaceLayout
from pretextlm.scoring.scorer import Scorer
from pretextlm.scoring.token_texts import TokenTexts


def scorer_of(model: Transformer, texts: TokenTexts, layout: BlankLayout) -> Scorer | None:
    """Returns the model as a scorer; None where the layout needs a decoder that the model does not have."""
    if isinstance(layout, ContinuationLayout):
        return AutoregressiveScorer(model, texts, layout) if model.decoder is not None else None
    assert isinstance(layout, InPlaceLayout), "a layout is of one of two kinds"
    return BidirectionalScorer(model, texts, layout)
