"""mBART (Liu et al. 2020, https://arxiv.org/abs/2001.08210): BART of many languages, norms before the sub-layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pretextlm.model.families.bart import Bart


class MBart(Bart):
    """mbart: each stack ends in a norm. Without a start token in the checkpoint, the decoder's is the language's."""

    name: ClassVar[str] = "mbart"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "MBartForConditionalGeneration": "encoder_decoder",
        "MBartModel": "encoder_decoder",
    }
    placement: ClassVar[Literal["pre", "post"]] = "pre"
