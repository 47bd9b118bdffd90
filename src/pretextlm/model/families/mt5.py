"""mT5 (Xue et al. 2021, https://arxiv.org/abs/2010.11934): T5 1.1 over many languages, the head never scaled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pretextlm.model.config import ModelConfig
from pretextlm.model.families.t5 import T5


class MT5(T5):
    """mt5: encoder-decoder, or its encoder alone."""

    name: ClassVar[str] = "mt5"
    classes: ClassVar[Mapping[str, Literal["encoder", "decoder", "encoder_decoder"]]] = {
        "MT5ForConditionalGeneration": "encoder_decoder",
        "MT5EncoderModel": "encoder",
        "MT5Model": "encoder_decoder",
    }
    projection: ClassVar[str] = "gated-gelu"

    def scales_head(self, values: Mapping[str, Any]) -> bool:
        return False

    def head_to_hf(self, config: ModelConfig) -> dict[str, Any]:
        return {}
