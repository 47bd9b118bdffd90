"""Every objective under the settings that change what it does, with the promises of each (pretextlm.testing)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pretextlm.objectives.base import Objective
from pretextlm.objectives.registry import build
from pretextlm.testing.contract import Contract, Text


@dataclass(frozen=True)
class Case:
    """An objective with options, and what it promises.

    Attributes:
        draws: least share of the rows whose noise changes from epoch to epoch; 0 for one without noise.
        padded: full rows may hold padding, because documents or pairs do not fill them exactly.
        text: "plain" documents, "pairs" or "both".
        open_answers: its input shows answers on purpose (tokens left as they are, shuffled ones, a whole damaged text).
        lost: share of the text that is neither in the input nor in the labels.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    draws: float = 0.7
    padded: bool = False
    text: Text = "plain"
    open_answers: bool = False
    lost: float = 0.0

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{k}={v}" for k, v in self.options.items())]).replace(" ", "")

    @property
    def objective(self) -> Objective:
        return build(self.name, self.options)

    @property
    def contract(self) -> Contract:
        return Contract(self.objective, self.text, self.draws, self.padded, self.open_answers, self.lost)


LOOK_AHEAD = 1 / 49
"""Of 49 tokens read, the last one of a masked row, which the next row reads again."""

MASKS_ONLY = {"mask_share": 1.0, "random_share": 0.0}
TABLE = [
    {"name": "short", "mode": "[R]", "kind": "span", "rate": 0.2, "mean_span_length": 2.0, "weight": 0.75},
    {"name": "rest", "mode": "[S]", "kind": "prefix", "rate": 0.25, "weight": 0.25},
]
CASES = [
    Case("causal", draws=0),
    Case("causal", {"isolate": False}, draws=0),
    Case("masked", open_answers=True),
    Case("masked", MASKS_ONLY),
    Case("masked", {"count": "bernoulli", **MASKS_ONLY}),
    Case("masked", {"unit": "word", "rate": 0.3, **MASKS_ONLY}),
    Case("masked", {"unit": "word", "count": "bernoulli", **MASKS_ONLY}),
    Case("masked", {"unit": "ngram", **MASKS_ONLY}),
    Case("masked", {"unit": "span", "replace": "unit", **MASKS_ONLY}),
    Case("masked", {"predict": "next", **MASKS_ONLY}),
    Case("masked", {"rate": 0.3, "final_rate": 0.15, **MASKS_ONLY}),
    Case("masked", {"static_masks": 3, **MASKS_ONLY}),
    Case("span_corruption"),
    Case("span_corruption", {"rate": 0.5, "mean_span_length": 4.0}),
    Case("span_corruption", {"edges": "free", "final_sentinel": True}),
    Case("span_corruption", {"layout": "prefix"}),
    Case("prefix"),
    Case("prefix", {"layout": "encoder_decoder"}),
    Case("prefix", {"layout": "encoder_decoder", "rate": 0.25}),
    Case("denoisers", {"table": "ul2", "edges": "free"}),  # with "t5" edges, a single span is always last
    Case("denoisers", {"table": "ul2", "edges": "free", "layout": "prefix"}),
    Case("denoisers", {"table": "teaching", "edges": "free"}),
    Case("denoisers", {"table": TABLE}, draws=0.4),
    Case("masked_sequence", open_answers=True),
    Case(
        "mixed_visibility", {"predict": "next", "masked": 1, "causal": 1}, draws=0.3, open_answers=True, lost=1 / 49
    ),  # of masked rows, the look-ahead
    Case(
        "mixed_visibility",
        {"predict": "next", "prefix": 8.0, "right_to_left": 8.0},
        draws=0.3,
        open_answers=True,
        lost=1 / 49,
    ),  # of masked rows, the look-ahead
    Case("mixed_visibility", {"predict": "here"}, open_answers=True, lost=LOOK_AHEAD),
    Case("span_boundary", open_answers=True),
    Case("word_structure", open_answers=True),
    Case("replaced_token", {"inner": {"name": "masked", **MASKS_ONLY}}),
    Case("replaced_token", {"inner": {"name": "bimodal_code"}}, text="pairs", padded=True, open_answers=True),
    Case("distillation", {"teacher": "somewhere", "inner": {"name": "masked", **MASKS_ONLY}}),
    Case("distillation", {"teacher": "somewhere", "inner": {"name": "causal"}}, draws=0),
    Case("permutation"),
    Case("denoising", open_answers=True),
    Case("fill_in_middle", {"rate": 0.9}, lost=0.2),
    Case("next_sentence", padded=True, open_answers=True),
    Case("next_sentence", {"classes": 3}, padded=True, open_answers=True),
    Case("sentence_order", padded=True, open_answers=True),
    Case("bimodal_code", padded=True, text="pairs", open_answers=True),
    Case("text_to_text", {"unsupervised": 0.0}, draws=0, padded=True, text="pairs"),
    Case("text_to_text", {"unsupervised": 0.5}, draws=0.3, padded=True, text="both"),
]
